"""Lets those who store go first: while storing is busy, questions together get a set share of the time.

A few asked at once don't wait: what nobody used of the share is kept for them, up to a second. Questions are never
stopped for it once they are asked; one that would wait for long is refused, and told for how long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from ingestor.errors import Overloaded

# A page of a dozen charts is some hundreds of milliseconds.
_SAVED_MAX_S = 1.0
# One long question would otherwise shut out all others for minutes.
_OWED_MAX_S = 1.0
_PATIENCE_S = 5.0
# Whoever would wait for longer than that is refused sooner, but not for what may be over in a moment.
_SURE_S = 1.0
# So soon those who wait go on when metrics wait no longer.
_LOOK_AGAIN_S = 0.1
# What one that has only just begun is taken to need: else all who waited would begin at once.
_BEGUN_S = 0.1
# What a sum of shares lacks by rounding is not worth a turn.
_WAIT_MIN_S = 0.001


class GivingWay:
    """`share` of the time is for questions, 1 for all of it, while `busy` says that storing is."""

    def __init__(
        self,
        share: float,
        busy: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._share = share
        self._busy = busy
        self._clock = clock
        self._sleep = sleep
        self._line = asyncio.Lock()
        self._saved_s = _SAVED_MAX_S
        self._counted_at_s = clock()
        # When those under way began.
        self._under_way: list[float] = []

    async def clear(self) -> None:
        """Returns when a question may be asked, in the order in which they came. Raises Overloaded."""
        came_at_s = self._clock()
        # Everybody takes it, if only for a moment: it alone knows of those who wait and have not woken up yet.
        async with self._line:
            while (wait_s := self._wait_s()) > 0:
                waited_s = self._clock() - came_at_s
                if waited_s >= _SURE_S and waited_s + wait_s > _PATIENCE_S:
                    raise self._refusal(wait_s)
                await self._sleep(min(max(wait_s, _WAIT_MIN_S), _LOOK_AGAIN_S))

    def refusal(self) -> Overloaded | None:
        """What a question hears that can't even wait; None when it is not held up here."""
        wait_s = self._wait_s()
        return self._refusal(wait_s) if wait_s > 0 else None

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around a question: what it takes is taken from the share."""
        began_s = self._clock()
        self._under_way.append(began_s)
        try:
            yield
        finally:
            self._under_way.remove(began_s)
            self._count()
            # While there is little to store, questions use up what was saved, and owe nothing.
            least_s = -_OWED_MAX_S if self._busy() else min(0.0, self._saved_s)
            self._saved_s = max(least_s, self._saved_s - (self._clock() - began_s))

    def _wait_s(self) -> float:
        """For how long a question has to wait as things are."""
        self._count()
        now_s = self._counted_at_s
        left_s = self._saved_s - sum(max(now_s - began_s, _BEGUN_S) for began_s in self._under_way)
        if left_s >= 0 or self._share >= 1 or not self._busy():
            return 0.0
        return min(-left_s, _OWED_MAX_S) / self._share

    def _refusal(self, wait_s: float) -> Overloaded:
        msg = (
            f"much is being stored, and queries together get {self._share * 100:g}% of the time meanwhile"
            " (QUERY_SHARE): ask for less, or later"
        )
        return Overloaded(msg, wait_s)

    def _count(self) -> None:
        now_s = self._clock()
        self._saved_s = min(_SAVED_MAX_S, self._saved_s + (now_s - self._counted_at_s) * self._share)
        self._counted_at_s = now_s
