"""How long one HTTP/2 connection may last, by what it does, and what is done then. Pure: it is told the time, and
what is seen of the connection.

Nothing here is on the way of a frame: the connection is looked at now and then, and what has not moved since is
counted from the first look.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from ingestor.transport.bounds import Bounds
from ingestor.transport.stalls import Stall


class Due(Enum):
    """What is to be done. DEPART: as at a drain. CUT: at once; nobody reads."""

    NOTHING = auto()
    DEPART = auto()
    CUT = auto()


class Seen(NamedTuple):
    """A connection at a moment: `heard` changes with every packet that ends a frame, `partial` says that a frame or
    a header block has begun, `unread` are the bytes that the client leaves unread, if that holds us up."""

    heard: int
    partial: bool
    calls: int
    last_call_at: float
    unread: int | None


class Tenure:
    """One connection's, made at `now`. `age_s` is what it may be, 0 for any."""

    def __init__(self, bounds: Bounds, now: float, age_s: float) -> None:
        self._bounds = bounds
        self._made_at = self._heard_at = self._whole_at = now
        self.idle_since = now
        self._heard = 0
        self._age_s = age_s
        self._stall = Stall(bounds.send_timeout_s)

    def due(self, now: float, seen: Seen) -> Due:
        """What is due at this moment."""
        if self._stall.is_over(now, seen.unread):
            return Due.CUT
        if seen.unread is not None:
            return Due.NOTHING  # nor is it listened to meanwhile
        if seen.heard != self._heard:
            self._heard, self._heard_at = seen.heard, now
        if self._heard and not seen.partial:
            self._whole_at = now
        elif now - self._whole_at > self._bounds.header_timeout_s and self._is_stuck(now):
            return Due.CUT
        return Due.DEPART if self._ends(now, seen) else Due.NOTHING

    def _is_stuck(self, now: float) -> bool:
        # Busy connections are nearly always seen in the middle of a frame.
        return not self._heard or now - self._heard_at > self._bounds.header_timeout_s

    def _ends(self, now: float, seen: Seen) -> bool:
        self.idle_since = now if seen.calls else max(self.idle_since, seen.last_call_at)
        idle_s = self._bounds.idle_s
        return bool((idle_s and now - self.idle_since > idle_s) or self.is_old(now))

    def is_old(self, now: float) -> bool:
        """Whether it has reached its age."""
        return bool(self._age_s) and now - self._made_at > self._age_s
