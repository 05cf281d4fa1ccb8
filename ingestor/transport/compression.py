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


def inflated(body: bytes, bytes_max: int) -> bytes:
    """What was gzipped, of which no more than `bytes_max` is inflated. Raises TooLarge or Invalid."""
    inflater = zlib.decompressobj(GZIP_BITS)
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


async def inflated_aside(body: bytes, bytes_max: int) -> bytes:
    """The same, beside the event loop where it may take long."""
    if len(body) > _INFLATED_HERE_MAX:
        return await asyncio.to_thread(inflated, body, bytes_max)
    return inflated(body, bytes_max)
