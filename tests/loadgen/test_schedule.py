"""Which requests a plan makes, when they are due, and how long a retry waits: decided without a clock."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ingestor.loadgen import LoadPlan, backoff
from ingestor.loadgen.schedule import Request, Schedule


def test_a_plan_ends_by_count_or_by_duration() -> None:
    """Without either the count is 10,000; both contradict each other."""
    assert LoadPlan().count == 10_000
    assert LoadPlan(duration_s=3).count is None
    with pytest.raises(ValidationError):
        LoadPlan(count=5, duration_s=3)


@pytest.mark.parametrize(
    ("fields", "planned"),
    [
        ({"count": 25, "batch": 10}, 25),
        ({"duration_s": 1, "rate": 95, "batch": 10}, 100),
        ({"duration_s": 1, "batch": 10}, None),
    ],
)
def test_the_planned_metrics_are_those_that_the_schedule_hands_out(
    fields: dict[str, Any], planned: int | None
) -> None:
    """With a count or a rate the plan knows how many metrics there are; by duration alone nobody does."""
    plan = LoadPlan(**fields)
    assert plan.metrics_planned == planned
    if planned is not None:
        schedule = Schedule(plan)
        assert sum(request.size for request in iter(lambda: schedule.take(0.0), None)) == planned


def test_requests_are_contiguous_and_due_by_the_rate() -> None:
    """Request i holds [i * batch, (i + 1) * batch), cut at the count, and is due when its first metric is."""
    schedule = Schedule(LoadPlan(count=25, batch=10, rate=100))
    assert [schedule.take(0.0) for _ in range(4)] == [
        Request(0, 0, 10, 0.0),
        Request(1, 10, 10, 0.1),
        Request(2, 20, 5, 0.2),
        None,
    ]


def test_nothing_is_due_after_the_duration() -> None:
    """Neither by the clock nor by the rate."""
    paced = Schedule(LoadPlan(duration_s=1, rate=10, batch=6))
    assert [paced.take(0.0) is None for _ in range(3)] == [False, False, True]
    assert Schedule(LoadPlan(duration_s=1)).take(1.0) is None


@pytest.mark.parametrize("attempt", [0, 1, 5, 1000])
def test_backoff_is_bounded_and_jittered(attempt: int) -> None:
    """Between half of it and all of it, and never longer than the bound."""
    least, most = backoff.delay_s(attempt, jitter=0.0), backoff.delay_s(attempt, jitter=1.0)
    assert most == 2 * least <= backoff.BACKOFF_S_MAX


def test_retry_after_is_a_minimum_with_a_bound() -> None:
    """A server that asks for seconds gets them, one that asks for an hour does not."""
    assert backoff.delay_s(0, 3.0, jitter=0.0) == 3.0
    assert backoff.delay_s(0, 3600.0) <= backoff.RETRY_AFTER_S_MAX + backoff.BACKOFF_S_MAX
