"""What came in on a stream and was not read yet, in place of grpclib's own buffer.

That keeps an object for each DATA frame, so that frames of one byte take a hundred times what HTTP/2's window
allows. Here the bytes are one piece. The client may send as much again as was read, and what a reader waits for
may be larger than the window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpclib.protocol import Buffer

from ingestor.transport.holding import Holding
from ingestor.transport.slowness import stood_still


class Inbox(Buffer):
    """`credit` is told how many bytes of the stream's window are free again; what lies here counts as one of
    `bodies`, and is thrown away where there is no room for it."""

    def __init__(self, credit: Callable[[int], None], bodies: Holding) -> None:
        self._credit = credit
        self._held = bodies.begin(self._let_go)
        self._data = bytearray()
        self._uncredited = 0
        self._ended = False
        self._news = asyncio.Event()

    def add(self, data: bytes, ack_size: int) -> None:
        """More of the request; with its padding it takes `ack_size` bytes of the window."""
        if self._held.ended:
            return
        self._data += data
        self._uncredited += ack_size
        self._held.grow(len(data))
        self._news.set()

    def eof(self) -> None:
        """The request has ended."""
        self._ended = True
        self._news.set()

    async def read(self, size: int) -> bytes:
        """So many bytes, or none at the end. Raises AssertionError, as grpclib's does, for an end in between, and
        Overloaded when what lay here was thrown away."""
        while len(self._data) < size and not self._ended:
            self._give_back(self._uncredited)
            self._news.clear()
            await self._news.wait()
        if self._held.ended:
            raise stood_still()
        if not self._data:
            return b""
        if len(self._data) < size:
            msg = "the stream ended in the middle"
            raise AssertionError(msg)
        with memoryview(self._data) as view:
            taken = bytes(view[:size])
        del self._data[:size]
        self._held.grow(-size)
        self._give_back(min(size, self._uncredited) if self._data else self._uncredited)
        return taken

    def unacked_size(self) -> int:
        """None: the stream is over, and the connection's window was given back as the bytes came."""
        return 0

    def close(self) -> None:
        """Nobody reads it any more."""
        self._held.end()
        self._data.clear()

    def _let_go(self) -> None:
        self._data.clear()
        self.eof()

    def _give_back(self, size: int) -> None:
        if size:
            self._uncredited -= size
            self._credit(size)
