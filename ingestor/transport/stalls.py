"""Tells a client that reads slowly from one that does not read. Pure: now and then it hears what is left."""

from __future__ import annotations

# What a client has to read within the time for it.
_PROGRESS_BYTES = 64 * 1024


class Stall:
    """How long a client takes too little of what it is sent."""

    __slots__ = ("_left", "_since", "_timeout_s")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._left: int | None = None
        self._since = 0.0

    def is_over(self, now: float, left: int | None) -> bool:
        """Whether its time is over, with so many bytes left; None when it holds nobody up."""
        if left is None:
            self._left = None
        elif self._left is None or self._left - left >= _PROGRESS_BYTES:
            self._left, self._since = left, now
        return self._left is not None and now - self._since > self._timeout_s
