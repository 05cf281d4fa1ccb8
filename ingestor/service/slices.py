"""Works through long lists of many requests beside what else the event loop does: some of one list a turn.

Not in threads, which share the loop's GIL: each that runs keeps every step of every call waiting. It refuses who
would wait behind too much.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import TypeVar

from ingestor.errors import Overloaded

T = TypeVar("T")

# Of what takes some 4 us each.
_A_TURN = 250
_FEW = 20
# Some two seconds of it. What waits is kept as columns; what is worked on, as objects: one request's at a time.
_WAITING_MAX = 500_000
_RETRY_AFTER_S = 1.0


class Slices:
    """Shared by all requests; first come, first served."""

    def __init__(self) -> None:
        self._free = asyncio.Lock()
        self._waiting = 0

    @asynccontextmanager
    async def place(self, items: int) -> AsyncIterator[None]:
        """Around work on so many items, which is nobody else's turn meanwhile unless they are few. Raises
        Overloaded."""
        if items <= _FEW:
            yield
            return
        if self._waiting and self._waiting + items > _WAITING_MAX:
            msg = "too many requests wait to be told of metrics that break rules: nothing was taken"
            raise Overloaded(msg, _RETRY_AFTER_S)
        self._waiting += items
        try:
            async with self._free:
                yield
        finally:
            self._waiting -= items


async def portions(items: Iterator[T]) -> AsyncIterator[list[T]]:
    """All of these, which are made as they are asked for: some a turn."""
    while portion := list(islice(items, _A_TURN)):
        yield portion
        if len(portion) == _A_TURN:
            await asyncio.sleep(0)


async def listed(items: Iterator[T]) -> list[T]:
    """The same in one list."""
    return [each async for portion in portions(items) for each in portion]
