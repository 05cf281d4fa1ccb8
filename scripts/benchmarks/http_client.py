"""HTTP/1.1 clients that cost next to nothing: one request in flight on each connection, answers by their length."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import cycle
from typing import cast

_LENGTH = b"content-length:"


class HttpConnection(asyncio.Protocol):
    """Posts the bodies in turn to one path; hears of each answer by `on_answer(latency in seconds)`."""

    def __init__(self, path: str, bodies: list[bytes], on_answer: Callable[[float], None]) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: "
        self._requests = cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
        self._on_answer = on_answer
        self._sent_s: float | None = None
        self._unread = b""
        self._goes_on = False
        self.failures = 0
        self.problem = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def open(self, calls: int) -> None:
        """Keeps a call in flight from now on; HTTP/1.1 has no more of them on one connection."""
        assert calls == 1
        self._goes_on = True
        self.call(time.perf_counter())

    def stop(self) -> None:
        """No more calls; the one in flight is still answered."""
        self._goes_on = False

    def call(self, due_s: float) -> None:
        """One call, now; its latency counts from `due_s` (perf_counter's seconds)."""
        self._sent_s = due_s
        self._transport.write(next(self._requests))

    @property
    def in_flight(self) -> int:
        """Calls that are not answered yet."""
        return int(self._sent_s is not None)

    @property
    def idle(self) -> bool:
        """Whether a call now would wait for no other."""
        return self._sent_s is None

    def close(self) -> None:
        """Drops the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, separator, body = self._unread.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.lower().index(_LENGTH) + len(_LENGTH)
        if len(body) < int(head[at:].partition(b"\r\n")[0]):
            return
        self._unread = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self.failures += 1
            self.problem = f"{head[:40]!r} {body[:200]!r}"
        elif self._sent_s is not None:
            self._on_answer(time.perf_counter() - self._sent_s)
        self._sent_s = None
        if self._goes_on:
            self.call(time.perf_counter())
