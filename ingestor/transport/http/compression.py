"""gzip of bodies, both ways. Pure: what is large should be given to a thread.

It knows no other coding, and takes one gzip member for a body: what follows it is an error, not more of the body.
"""

from __future__ import annotations

import zlib

from ingestor.errors import Invalid, TooLarge

GZIP = "gzip"
NAMES = frozenset({GZIP, "x-gzip"})
_GZIP_BITS = 16 + zlib.MAX_WBITS
# Half of zlib's time for some more bytes.
_LEVEL = 4


def inflated(body: bytes, bytes_max: int) -> bytes:
    """What was gzipped, of which no more than `bytes_max` is inflated. Raises TooLarge or Invalid."""
    inflater = zlib.decompressobj(_GZIP_BITS)
    try:
        content = inflater.decompress(body, bytes_max + 1)
    except zlib.error:
        msg = "the body is not gzip"
        raise Invalid(msg) from None
    if len(content) > bytes_max:
        msg = f"the body is larger than {bytes_max} bytes when it is inflated (MESSAGE_BYTES_MAX)"
        raise TooLarge(msg)
    if not inflater.eof:
        msg = "the body's gzip ended before its end"
        raise Invalid(msg)
    if inflater.unused_data:
        msg = "something follows the body's gzip"
        raise Invalid(msg)
    return content


def deflated(content: bytes) -> bytes:
    """The content in gzip."""
    return zlib.compress(content, _LEVEL, _GZIP_BITS)


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
