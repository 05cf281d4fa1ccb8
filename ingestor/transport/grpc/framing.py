"""Reads a unary request from a grpclib stream: one gRPC message, within a bound, and nothing behind it.

In place of grpclib's own `recv_message`, which buffers whatever length the prefix declares, answers a missing,
cut or compressed message with UNKNOWN, and does not look at what follows the first message.
Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

from ingestor.errors import Invalid, TooLarge, Unsupported

_PREFIX = struct.Struct(">?I")


async def read_request(receive: Callable[[int], Awaitable[bytes]], bytes_max: int) -> bytes:
    """The request's one message, once the client has ended the stream. `receive` returns as many bytes as asked
    for, or none at the end of the stream. Raises Invalid, TooLarge (before a byte of the message is read) or
    Unsupported."""
    body = await _read_message(receive, bytes_max)
    # A method must not run on half of what the client meant. One byte is enough to know that there is more.
    if await _exactly(receive, 1):
        msg = "the request goes on after its one message"
        raise Invalid(msg)
    return body


async def _read_message(receive: Callable[[int], Awaitable[bytes]], bytes_max: int) -> bytes:
    prefix = await _exactly(receive, _PREFIX.size)
    if not prefix:
        msg = "the request has no message"
        raise Invalid(msg)
    compressed, length = _PREFIX.unpack(prefix)
    if compressed:
        msg = "compressed messages can't be read: send grpc-encoding identity"
        raise Unsupported(msg)
    if length > bytes_max:
        msg = f"the message has {length} bytes, {bytes_max} at most (MESSAGE_BYTES_MAX)"
        raise TooLarge(msg)
    body = await _exactly(receive, length)
    if len(body) < length:
        msg = f"the message ends before its {length} bytes"
        raise Invalid(msg)
    return body


async def _exactly(receive: Callable[[int], Awaitable[bytes]], size: int) -> bytes:
    try:
        return await receive(size)
    except AssertionError:
        # How grpclib says that the stream ended in the middle.
        msg = "the message ends before its declared length"
        raise Invalid(msg) from None
