"""Where streams wait for what their keys allow a second: first come first. If those who wait together woke
together, the first alone would find something left.

What waits is decoded already, and so counted: it refuses who would be too much, and all once the server stops.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from weakref import WeakValueDictionary

from ingestor.caller import Caller
from ingestor.errors import TooFast, Unavailable
from ingestor.service.in_hand import InHand

# A key that allows so little is not waited for.
_WAIT_S_MAX = 10.0
_RETRY_AFTER_S = 1.0


class Pacing:
    """Of all streams of a server; `in_hand` is what they hold meanwhile."""

    def __init__(self, in_hand: InHand) -> None:
        self._in_hand = in_hand
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Nobody waits any more: what was not taken is not taken."""
        self._closed.set()

    async def spend(self, caller: Caller, rows: int, size_bytes: int) -> None:
        """Asks the key for so many rows, with so many bytes in hand. Raises TooFast for a key that allows too
        little to be waited for, Unauthenticated when it ends meanwhile, Overloaded or Unavailable."""
        line = self._lines.get(caller.id)
        if line is None or not line.locked():
            try:
                caller.spend(rows)
            except TooFast as refusal:
                if refusal.retry_after_s > _WAIT_S_MAX:
                    raise
            else:
                return
        with self._in_hand.held(size_bytes):
            if line is None:
                line = self._lines.setdefault(caller.id, asyncio.Lock())
            async with line:
                await self._first_in_line(caller, rows)

    async def _first_in_line(self, caller: Caller, rows: int) -> None:
        while True:
            if self._closed.is_set():
                msg = "the server is stopping: what was not answered was not taken"
                raise Unavailable(msg, _RETRY_AFTER_S)
            caller.check()
            try:
                caller.spend(rows)
            except TooFast as refusal:
                wait_s = refusal.retry_after_s
            else:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._closed.wait()
