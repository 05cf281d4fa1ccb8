"""Sees to it that each row's week has a partition before COPY, where `metrics` is plain PostgreSQL's.

It creates and never drops; which weeks are there already is remembered, and forgotten on `forget`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

_WEEK_US = 7 * 86_400 * 1_000_000
# 1970-01-01 was a Thursday; weeks begin on Monday, as in PostgreSQL's date_trunc('week').
_MONDAY_US = 4 * 86_400 * 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Statements(Protocol):
    """Runs one statement in a transaction of its own."""

    async def execute(self, query: str, *arguments: object) -> object: ...


def weeks_of(times: pa.Array) -> set[datetime]:
    """The first moments of the weeks (Monday 00:00 UTC) that these timestamps lie in."""
    shifted = pc.subtract(times.cast(pa.int64()), _MONDAY_US)
    # Arrow divides towards zero; times before 1970 need the floor.
    numbers = pc.unique(pc.floor(pc.divide(shifted.cast(pa.float64()), float(_WEEK_US))))
    return {
        _EPOCH + timedelta(microseconds=int(number) * _WEEK_US + _MONDAY_US) for number in numbers.to_pylist()
    }


class WeeklyPartitions:
    """The partitions of a range-partitioned `metrics`."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._known: set[datetime] = set()

    async def ensure(self, times: pa.Array) -> None:
        """Creates the missing partitions for these timestamps, each in a transaction of its own so that its
        lock is short. Raises what asyncpg raises."""
        for week in sorted(weeks_of(times) - self._known):
            await self._statements.execute("SELECT ensure_metrics_partition($1)", week)
            self._known.add(week)

    def forget(self) -> None:
        """Asks the database again next time."""
        self._known.clear()
