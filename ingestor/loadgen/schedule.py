"""When which request is due: pure, told the time by its caller.

It hands out every request once, in order, and never waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingestor.loadgen.plan import LoadPlan


@dataclass(frozen=True, slots=True)
class Request:
    """Rows [first, first + size), to be sent `due_s` seconds after the start (None: as soon as may be)."""

    index: int
    first: int
    size: int
    due_s: float | None


class Schedule:
    """With a rate the clock alone says when a request is due, however slow the answers are."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._index = 0

    def take(self, elapsed_s: float) -> Request | None:
        """The next request, or None when the plan is fulfilled or its time is over."""
        plan = self._plan
        first = self._index * plan.batch
        size = plan.batch if plan.count is None else min(plan.batch, plan.count - first)
        due_s = None if plan.rate is None else first / plan.rate
        over = plan.duration_s is not None and max(elapsed_s, due_s or 0) >= plan.duration_s
        if size <= 0 or over:
            return None
        self._index += 1
        return Request(self._index - 1, first, size, due_s)
