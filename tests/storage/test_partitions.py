"""Which weeks rows lie in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ingestor.storage.partitions import weeks_of

moments = st.datetimes(min_value=datetime(1900, 1, 8), max_value=datetime(2200, 1, 1))


@given(st.lists(moments, min_size=1, max_size=5))
def test_weeks_are_those_of_the_calendar(times: list[datetime]) -> None:
    """Python's own calendar agrees, before 1970 as well: Monday, 00:00 UTC."""
    aware = [time.replace(tzinfo=UTC) for time in times]
    mondays = {
        (time - timedelta(days=time.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
        for time in aware
    }
    assert weeks_of(pa.array(aware, pa.timestamp("us", tz="UTC"))) == mondays


def test_the_last_microsecond_belongs_to_its_week() -> None:
    """Floating point must not round it into the next one."""
    monday = datetime(2026, 11, 23, tzinfo=UTC)
    times = [monday - timedelta(microseconds=1), monday, monday + timedelta(days=7, microseconds=-1)]
    array = pa.array(times, pa.timestamp("us", tz="UTC"))
    assert weeks_of(array) == {monday - timedelta(days=7), monday}
