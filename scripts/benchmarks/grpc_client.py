"""Unary gRPC clients that cost next to nothing, so that a server's own speed is what is measured.

A connection keeps a number of calls in flight. Requests are encoded once: a header block that touches no dynamic
table is the same bytes for every stream. Answers are not decoded but walked frame by frame: a stream that ends
without a message was refused.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import cast

from hpack.hpack import encode_integer

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_FRAME_MAX = 16_384
_WINDOW = 2**31 - 1
_START = struct.Struct(">IBI")  # the length's 24 bits and the type, the flags, the stream


def frame(type_: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame (RFC 9113, 4.1)."""
    return _START.pack(len(payload) << 8 | type_, flags, stream) + payload


def header_block(path: str, authority: str) -> bytes:
    """The request's headers, each a literal that is not indexed (RFC 7541, 6.2.2)."""

    def text(value: str) -> bytes:
        return bytes(encode_integer(len(value), 7)) + value.encode()

    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())


class UnaryConnection(asyncio.Protocol):
    """Calls one method with the bodies in turn; hears of each answer by `on_answer(latency in seconds)`.

    Closed loop: `open(calls)` keeps that many in flight. Open loop: `call()` sends one whenever it is due.
    """

    def __init__(self, path: str, bodies: list[bytes], on_answer: Callable[[float], None]) -> None:
        self._block = header_block(path, "bench")
        self._messages = cycle([struct.pack(">?I", False, len(body)) + body for body in bodies])
        self._on_answer = on_answer
        self._next = 1
        self._sent_s: dict[int, float] = {}
        self._unread = b""
        self._closed_loop = False
        self._with_message: set[int] = set()
        self.failures = 0
        self.problem = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        settings = struct.pack(">HI", 4, _WINDOW)  # INITIAL_WINDOW_SIZE
        window = struct.pack(">I", _WINDOW - 65_535)
        self._transport.write(
            _PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, window)
        )

    def open(self, calls: int) -> None:
        """Keeps so many calls in flight from now on."""
        self._closed_loop = True
        now_s = time.perf_counter()
        self._transport.write(b"".join(self._request(now_s) for _ in range(calls)))

    def stop(self) -> None:
        """No more calls; those in flight are still answered."""
        self._closed_loop = False

    def call(self, due_s: float) -> None:
        """One more call, now; its latency counts from `due_s` (perf_counter's seconds)."""
        self._transport.write(self._request(due_s))

    @property
    def idle(self) -> bool:
        """Whether a call now would wait for no other."""
        return True

    @property
    def in_flight(self) -> int:
        """Calls that are not answered yet."""
        return len(self._sent_s)

    def close(self) -> None:
        """Drops the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        replies: list[bytes] = []
        for type_, flags, stream, payload in self._frames(data):
            if type_ == _DATA:
                self._with_message.add(stream)
            elif type_ == _HEADERS and flags & _END_STREAM:
                self._answered(stream)
                if self._closed_loop:
                    replies.append(self._request(time.perf_counter()))
            else:
                self._other(type_, flags, stream, payload, replies)
        if replies:
            self._transport.write(b"".join(replies))

    def _other(self, type_: int, flags: int, stream: int, payload: bytes, replies: list[bytes]) -> None:
        if type_ == _RST_STREAM:
            self._failed(stream, f"reset with {int.from_bytes(payload)}")
        elif type_ == _SETTINGS and not flags & _ACK:
            replies.append(frame(_SETTINGS, _ACK, 0))
        elif type_ == _PING and not flags & _ACK:
            replies.append(frame(_PING, _ACK, 0, payload))
        elif type_ == _GOAWAY:
            self.problem = f"GOAWAY {payload!r}"

    def _frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._unread + data
        at, size = 0, len(data)
        while at + 9 <= size:
            start, flags, stream = _START.unpack_from(data, at)
            end = at + 9 + (start >> 8)
            if end > size:
                break
            yield start & 0xFF, flags, stream, data[at + 9 : end]
            at = end
        self._unread = data[at:]

    def _request(self, since_s: float) -> bytes:
        stream = self._next
        self._next += 2
        message = next(self._messages)
        self._sent_s[stream] = since_s
        pieces = [frame(_HEADERS, _END_HEADERS, stream, self._block)]
        for start in range(0, len(message), _FRAME_MAX):
            piece = message[start : start + _FRAME_MAX]
            last = start + _FRAME_MAX >= len(message)
            pieces.append(frame(_DATA, _END_STREAM if last else 0, stream, piece))
        return b"".join(pieces)

    def _answered(self, stream: int) -> None:
        if stream not in self._with_message:
            self._failed(stream, "answered without a message")
        elif (sent_s := self._sent_s.pop(stream, None)) is not None:
            self._with_message.discard(stream)
            self._on_answer(time.perf_counter() - sent_s)

    def _failed(self, stream: int, problem: str) -> None:
        self._sent_s.pop(stream, None)
        self.failures += 1
        self.problem = problem
