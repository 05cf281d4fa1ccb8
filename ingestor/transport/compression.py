"""gzip of requests, the same for both protocols. Pure, but for what gives large ones to a thread.

It knows no other coding, and takes one gzip member for a body: what follows it is an error, not more of the body.
"""

from __future__ import annotations

import asyncio
import zlib

from ingestor.errors import Invalid, TooLarge

GZIP = "gzip"
GZIP_BITS = 16 + zlib.MAX_WBITS
# gzip makes a thousandth of zeros at the best: these are some 2 ms.
_INFLATED_HERE_MAX = 2048
# Some 0.2 ms.
_PIECE_BYTES = 64 * 1024


class Inflater:
    """Inflates what comes in pieces, `_PIECE_BYTES` at a time, however much it is."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(GZIP_BITS)
        self.has_more = False

    def inflate(self, data: bytes) -> bytes:
        """The next piece, of this and what is left of before; while `has_more`, there is no need to give any.
        Raises Invalid."""
        try:
            content = self._inflater.decompress(self._inflater.unconsumed_tail + data, _PIECE_BYTES)
        except zlib.error:
            raise _no_gzip() from None
        if self._inflater.unused_data:
            raise _followed()
        self.has_more = len(content) == _PIECE_BYTES
        return content

    def end(self) -> None:
        """Nothing more comes. Raises Invalid unless that is right."""
        if not self._inflater.eof:
            raise _cut_off()


def inflated(body: bytes, bytes_max: int) -> bytes:
    """What was gzipped, of which no more than `bytes_max` is inflated. Raises TooLarge or Invalid."""
    inflater = zlib.decompressobj(GZIP_BITS)
    try:
        content = inflater.decompress(body, bytes_max + 1)
    except zlib.error:
        raise _no_gzip() from None
    if len(content) > bytes_max:
        msg = f"the body is larger than {bytes_max} bytes when it is inflated (MESSAGE_BYTES_MAX)"
        raise TooLarge(msg)
    if not inflater.eof:
        raise _cut_off()
    if inflater.unused_data:
        raise _followed()
    return content


async def inflated_aside(body: bytes, bytes_max: int) -> bytes:
    """The same, beside the event loop where it may take long."""
    if len(body) > _INFLATED_HERE_MAX:
        return await asyncio.to_thread(inflated, body, bytes_max)
    return inflated(body, bytes_max)


def _no_gzip() -> Invalid:
    return Invalid("the body is not gzip")


def _cut_off() -> Invalid:
    return Invalid("the body's gzip ended before its end")


def _followed() -> Invalid:
    return Invalid("something follows the body's gzip")
