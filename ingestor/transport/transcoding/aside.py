"""Runs what takes long beside the event loop, so that it goes on answering others meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ingestor.errors import Overloaded

_P = ParamSpec("_P")
_T = TypeVar("_T")

# The shortest elements of a JSON list, `{},`, cost 3 µs a byte to parse: 50 ms for so many bytes.
_INLINE_BYTES_MAX = 16 * 1024
# Threads share one GIL: more of them make nothing faster, and the loop wait for each in its turn.
_AT_ONCE = 2
_WAITING_BYTES_MAX = 64 * 1024 * 1024
_RETRY_AFTER_S = 1.0


class Aside:
    """A place beside the event loop where few things run at once; the others wait, first come first served."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._waiting_bytes = 0

    def check_room(self, size_bytes: int) -> None:
        """Raises Overloaded when too many wait already for a request of so many bytes to join them."""
        if self._waiting_bytes + size_bytes > _WAITING_BYTES_MAX:
            msg = "too many requests wait to be decoded: nothing was taken"
            raise Overloaded(msg, _RETRY_AFTER_S)

    async def run(
        self, size_bytes: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Calls the function: in a thread when `size_bytes`, of what it works on, are many."""
        if size_bytes <= _INLINE_BYTES_MAX:
            return function(*args, **kwargs)
        self._waiting_bytes += size_bytes
        try:
            async with self._free:
                return await asyncio.to_thread(function, *args, **kwargs)
        finally:
            self._waiting_bytes -= size_bytes
