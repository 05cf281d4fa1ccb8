"""When a flush is due, and how long a failure is waited out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.batching import Backoff, FlushPolicy

POLICY = FlushPolicy(batch_size=5, flush_interval_s=1.0)


@pytest.mark.parametrize(
    ("rows", "age_s", "pressed", "due_in_s"),
    [
        (0, 0.0, False, None),
        (0, 9.0, True, None),
        (1, 0.0, False, 1.0),
        (4, 0.75, False, 0.25),
        (4, 1.0, False, 0.0),
        (4, 99.0, False, 0.0),
        (5, 0.0, False, 0.0),
        (50, 0.0, False, 0.0),
        (1, 0.0, True, 0.0),
    ],
)
def test_due(rows: int, age_s: float, *, pressed: bool, due_in_s: float | None) -> None:
    """Size or age, whichever comes first; at once when somebody waits for room; never for nothing."""
    assert POLICY.due_in_s(rows, age_s, pressed=pressed) == due_in_s


def test_a_batch_that_was_held_up_grows() -> None:
    """Three times the size that starts a flush is enough for one transaction, or as many as it is told."""
    assert POLICY.rows_max == 15
    assert FlushPolicy(5, 1.0, growth=10).rows_max == 50


def test_backoff_doubles_up_to_its_bound() -> None:
    """Without chance: half of 0.1, 0.2, 0.4 ... 5 s."""
    delays = [Backoff().delay_s(failures, 0.0) for failures in (1, 2, 3, 6, 7, 1000)]
    assert delays == [0.05, 0.1, 0.2, 1.6, 2.5, 2.5]


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded(failures: int, chance: float) -> None:
    """However long an outage lasts, the wait is positive and at most 5 s."""
    assert 0.05 <= Backoff().delay_s(failures, chance) <= 5.0
