"""What share of the last second or so was spent at something. It knows no other time than the clock it is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What is longer ago than that counts for little, by 1/e for each.
_MEMORY_S = 1.0


class Duty:
    """Of one that does one thing at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._share = 0.0
        self._at_it = False
        self._counted_at_s = clock()

    @property
    def share(self) -> float:
        """From 0 to 1; the shorter ago, the more it counts."""
        now_s = self._clock()
        aim = 1.0 if self._at_it else 0.0
        self._share = aim + (self._share - aim) * math.exp((self._counted_at_s - now_s) / _MEMORY_S)
        self._counted_at_s = now_s
        return self._share

    @contextmanager
    def done(self) -> Iterator[None]:
        """Around what is done."""
        self._turn(at_it=True)
        try:
            yield
        finally:
            self._turn(at_it=False)

    def _turn(self, *, at_it: bool) -> None:
        _ = self.share  # up to now
        self._at_it = at_it
