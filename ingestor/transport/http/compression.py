"""gzip of answers, and whether a client takes it. Pure: what is large should be given to a thread."""

from __future__ import annotations

import zlib

from ingestor.transport.compression import GZIP, GZIP_BITS

NAMES = frozenset({GZIP, "x-gzip"})
# Half of zlib's time for some more bytes.
_LEVEL = 4
# A window of 8 KiB, which makes 64 KiB of memory a stream, a quarter of zlib's own choice.
_STREAM_BITS, _STREAM_MEMORY = 16 + 13, 6


def deflated(content: bytes) -> bytes:
    """The content in gzip."""
    return zlib.compress(content, _LEVEL, GZIP_BITS)


class Deflater:
    """Deflates a stream line by line: each can be read when it has come."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _STREAM_BITS, _STREAM_MEMORY)

    def add(self, piece: bytes) -> bytes:
        """What can be sent by now."""
        return self._deflater.compress(piece)

    def flush(self) -> bytes:
        """The rest of what was added."""
        return self._deflater.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """What ends the stream."""
        return self._deflater.flush(zlib.Z_FINISH)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether this header prefers gzip, or likes it as much, to what is not compressed (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        weights["gzip" if coding in NAMES else coding] = _weight(parameters)
    wanted = weights.get(GZIP, weights.get("*", 0.0))
    return wanted > 0 and wanted >= weights.get("identity", 0.0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
