"""What many rows were rejected for: as small as it may be until it is looked at, and the same then."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from ingestor_api.analytics.v1 import RejectedMetric

from ingestor.model import DeadRow
from ingestor.service.answers import decoded, encoded, with_dead
from ingestor.service.rejections import Packed, kept

MANY = 20_000


def rejections(count: int) -> Iterator[RejectedMetric]:
    return (RejectedMetric(index=index, reason=f"metric_name: {index} is no name") for index in range(count))


async def test_many_take_next_to_nothing_until_they_are_looked_at() -> None:
    """Any number of requests may wait for a commit with theirs: as objects these would take megabytes."""
    tracemalloc.start()
    try:
        waiting = await kept(rejections(MANY), MANY)
        held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 12 * MANY
    assert peak_bytes < 40 * MANY
    assert list(waiting) == list(rejections(MANY))
    assert len(waiting) == MANY
    assert waiting[MANY - 1] == RejectedMetric(index=MANY - 1, reason=f"metric_name: {MANY - 1} is no name")


async def test_few_stay_as_they_are() -> None:
    """To pack them would cost more than it saves."""
    few = await kept(rejections(3), 3)
    assert few == list(rejections(3))
    assert not isinstance(few, Packed)


async def test_what_is_kept_for_a_repetition_is_packed_as_well() -> None:
    """However often a request with many bad rows is sent again."""
    again = decoded(encoded(list(rejections(MANY))))
    assert isinstance(again, Packed)
    assert list(again) == list(rejections(MANY))
    assert decoded(encoded([])) == []


async def test_dead_rows_take_their_place_among_many() -> None:
    """Answers count the rows of the request: the first that was taken comes behind all that were rejected."""
    waiting = await kept(rejections(MANY), MANY)
    dead = [DeadRow(1, "22003", "out of range"), DeadRow(0, "22003", "out of range")]
    told = with_dead(waiting, dead, MANY + 2)
    assert isinstance(told, Packed)
    assert [each.index for each in told] == list(range(MANY + 2))
