"""How the one who stores sleeps until there is enough to read: shared by all journals.

It knows numbers of rows, and nothing of entries.
"""

from __future__ import annotations

import asyncio


class Reader:
    """At most one waits at a time."""

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._wanted_rows = 0

    async def wait(self, rows: int, timeout_s: float | None) -> None:
        """Returns when `arrived` is told of so many rows, on `wake`, or after `timeout_s` seconds."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._wanted_rows = rows
        try:
            await asyncio.wait_for(self._waiter, timeout_s)
        except TimeoutError:
            pass
        finally:
            self._waiter = None

    def arrived(self, waiting_rows: int) -> None:
        """So many rows wait now."""
        if waiting_rows >= self._wanted_rows:
            self.wake()

    def wake(self) -> None:
        """Whatever waits, look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
