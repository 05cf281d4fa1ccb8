"""How many requests and metrics a second a caller may send: token buckets, which hold what one second allows.

What is more than a bucket ever holds is let through when it is full, and has to be paid back before the next: a
batch that is larger than the rate is slow, but never impossible.
"""

from __future__ import annotations

from collections.abc import Callable

from ingestor.errors import TooFast


class Bucket:
    """`rate` of `what` a second. `clock` gives seconds."""

    __slots__ = ("_at_s", "_clock", "_holds", "_level", "_rate", "_what")

    def __init__(self, rate: float, what: str, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._what = what
        self._clock = clock
        self._holds = self._level = max(1.0, rate)
        self._at_s = clock()

    def take(self, count: int) -> None:
        """Takes so many out. Raises TooFast, and then takes none."""
        now_s = self._clock()
        self._level = min(self._holds, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        # A hair less will do: the clock's seconds don't add up exactly.
        lacking = min(float(count), self._holds) - self._level
        if lacking > 1e-6 * self._holds:
            msg = f"the key allows {self._rate:g} {self._what} a second: nothing was taken"
            raise TooFast(msg, lacking / self._rate)
        self._level -= count
