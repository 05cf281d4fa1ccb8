"""Notices a peer that is gone without a word: a cut cable or a dead machine sends no FIN, and its streams would
stay open, with all that they hold, until TCP gives up after hours.

A connection on which nothing came for a while is sent a PING, which every HTTP/2 peer answers at once, whatever
its calls are doing. Anything that comes is a sign of life, a call in the lane as well as an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

# Our own timer is late when this process was stopped, or its machine slept: what the peer sent may lie unread.
_LATE_S = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """A peer that was silent for `idle_s` is asked whether it is there, and has `answer_s` to say anything."""

    idle_s: float = 60.0
    answer_s: float = 20.0


class Step(Enum):
    """What is to be done now."""

    WAIT = auto()
    ASK = auto()
    END = auto()


class Watch:
    """Decides, without a clock or a connection. Times are seconds of one monotonic clock."""

    def __init__(self, patience: Patience, now_s: float) -> None:
        self._patience = patience
        self.heard_at = now_s
        self._asked_at: float | None = None

    def look(self, now_s: float) -> tuple[Step, float]:
        """What to do now, and when to look again."""
        if self._asked_at is None or self.heard_at >= self._asked_at:
            self._asked_at = None
            due = self.heard_at + self._patience.idle_s
            return (Step.WAIT, due) if now_s < due else self._ask(now_s)
        due = self._asked_at + self._patience.answer_s
        if now_s < due:
            return Step.WAIT, due
        return self._ask(now_s) if now_s > due + _LATE_S else (Step.END, due)

    def _ask(self, now_s: float) -> tuple[Step, float]:
        self._asked_at = now_s
        return Step.ASK, now_s + self._patience.answer_s


class Keepalive:
    """Watches one connection: `ask` sends a PING, `end` closes it. `heard` must be told of all that comes, and
    `stop` that the connection is gone."""

    def __init__(self, patience: Patience, ask: Callable[[], None], end: Callable[[], None]) -> None:
        self._watch = Watch(patience, time.monotonic())
        self._ask = ask
        self._end = end
        self._timer: asyncio.TimerHandle | None = None
        self._look()

    def heard(self) -> None:
        """Something came. Costs no timer: that looks by itself."""
        self._watch.heard_at = time.monotonic()

    def stop(self) -> None:
        """There is nothing to watch any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now_s = time.monotonic()
        step, again_at = self._watch.look(now_s)
        if step is Step.END:
            self._end()
            return
        if step is Step.ASK:
            self._ask()
        self._timer = asyncio.get_running_loop().call_later(again_at - now_s, self._look)
