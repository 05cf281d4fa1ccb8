"""Reads requests from a grpclib stream, within a bound: a unary one, which has nothing behind it, or one after
another.

In place of grpclib's own `recv_message`, which buffers whatever length the prefix declares, answers a missing,
cut or compressed message with UNKNOWN, and does not look at what follows the first message. `gzip` says that the
request's headers allow its messages to be in it; what they are when inflated has the same bound.
Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ingestor.errors import Invalid, TooLarge, Unsupported
from ingestor.transport.compression import inflated_aside

_PREFIX = struct.Struct(">?I")


class Prefix(NamedTuple):
    """What a message is: its `length` in bytes as it is sent, and whether it is to be inflated."""

    length: int
    deflated: bool


class Framing:
    """One request's message, as its bytes come. Raises Invalid, TooLarge (at the prefix, before such a message is
    kept) or Unsupported."""

    __slots__ = ("_bytes_max", "_gzip", "_received", "_whole")

    def __init__(self, bytes_max: int, *, gzip: bool = False) -> None:
        self._bytes_max = bytes_max
        self._gzip = gzip
        self._received = bytearray()  # not the pieces, which may be of one byte each
        self._whole: int | None = None  # what prefix and message take, once the prefix is there

    def add(self, data: bytes | memoryview) -> None:
        """More of the request."""
        self._received += data
        if self._whole is None and len(self._received) >= _PREFIX.size:
            self._whole = _PREFIX.size + _length(self._received, self._bytes_max, gzip=self._gzip)
        if self._whole is not None and len(self._received) > self._whole:
            raise _goes_on()

    @property
    def missing(self) -> int:
        """The bytes that are still to come, as far as is known."""
        return 0 if self._whole is None else self._whole - len(self._received)

    @property
    def deflated(self) -> bool:
        """Whether the message has yet to be inflated."""
        return self._received[0] != 0

    def complete(self) -> bytes:
        """The message as it was sent, now that the request has ended."""
        if not self._received:
            raise _missing()
        if len(self._received) != self._whole:
            raise _cut()
        return bytes(memoryview(self._received)[_PREFIX.size :])


async def read_request(
    receive: Callable[[int], Awaitable[bytes]], bytes_max: int, *, gzip: bool = False
) -> bytes:
    """The request's one message, once the client has ended the stream. `receive` returns as many bytes as asked
    for, or none at the end of the stream. Raises as `Framing` does."""
    prefix = await read_prefix(receive, bytes_max, gzip=gzip)
    if prefix is None:
        raise _missing()
    body = await read_body(receive, prefix, bytes_max)
    # A method must not run on half of what the client meant. One byte is enough to know that there is more.
    if await _exactly(receive, 1):
        raise _goes_on()
    return body


async def read_prefix(
    receive: Callable[[int], Awaitable[bytes]], bytes_max: int, *, gzip: bool = False
) -> Prefix | None:
    """What the next message is; None at the end of the stream. Raises likewise."""
    prefix = await _exactly(receive, _PREFIX.size)
    return Prefix(_length(prefix, bytes_max, gzip=gzip), deflated=bool(prefix[0])) if prefix else None


async def read_body(receive: Callable[[int], Awaitable[bytes]], prefix: Prefix, bytes_max: int) -> bytes:
    """The message behind this prefix. Raises likewise."""
    body = await _exactly(receive, prefix.length)
    if len(body) < prefix.length:
        raise _cut()
    return await inflated_aside(body, bytes_max) if prefix.deflated else body


async def _exactly(receive: Callable[[int], Awaitable[bytes]], size: int) -> bytes:
    try:
        return await receive(size)
    except AssertionError:
        # How grpclib says that the stream ended in the middle.
        raise _cut() from None


def _length(message: bytes | bytearray, bytes_max: int, *, gzip: bool) -> int:
    """What the prefix declares."""
    compressed, length = _PREFIX.unpack_from(message)
    if compressed and not gzip:
        msg = "this compression can't be read: send grpc-encoding gzip or identity"
        raise Unsupported(msg)
    if length > bytes_max:
        msg = f"the message has {length} bytes, {bytes_max} at most (MESSAGE_BYTES_MAX)"
        raise TooLarge(msg)
    return int(length)


def _missing() -> Invalid:
    return Invalid("the request has no message")


def _cut() -> Invalid:
    return Invalid("the message ends before its declared length")


def _goes_on() -> Invalid:
    return Invalid("the request goes on after its one message")
