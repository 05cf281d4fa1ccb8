"""What analysts get: a query of one series after an hour of small flushes, from the column store and from rows."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from ingestor.model import MetricBatch, Row
from ingestor.storage.opening import open_database
from ingestor.timestamps import microseconds
from tests.conftest import fresh_database
from tests.storage.deliveries import Gateway

START = (datetime.now(UTC) - timedelta(days=3)).replace(second=0, microsecond=0)
SERIES = 100
_FLUSHES = 720  # one every 5 s
_QUERY = """
SELECT date_bin('1 minute', time, 'epoch') AS minute, avg(value), count(*) FROM metrics
  WHERE service_name = 's3' AND metric_name = 'm7' GROUP BY 1 ORDER BY 1
"""


def flush(number: int) -> MetricBatch:
    """Twenty rows of each series, but for every tenth flush, which is too thin for the column store."""
    each = 3 if number % 10 == 0 else 20
    begun = microseconds(START) + number * 5_000_000
    return MetricBatch.of_rows(
        [
            Row(begun + row * 250_000 + series, f"s{series % 10}", f"m{series // 10}", float(series + row))
            for row in range(each)
            for series in range(SERIES)
        ],
        {},
    )


@pytest.fixture
async def hour(timescale_url: str) -> list[MetricBatch]:
    return [flush(number) for number in range(_FLUSHES)]


async def filled(
    url: str, batches: list[MetricBatch], *, columns: bool
) -> asyncpg.Connection[asyncpg.Record]:
    """A connection to a database that holds them, after its policies ran."""
    database = await open_database(url, column_store="on" if columns else "off")
    gateway = Gateway(database)
    for batch in batches:
        await gateway.store(batch)
    await database.close(5)
    connection = await asyncpg.connect(url)
    jobs = await connection.fetch(
        "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = 'metrics'"
    )
    assert bool(jobs) is columns
    for job in jobs:
        await connection.execute(f"CALL run_job({job['job_id']})")
    await connection.execute("VACUUM ANALYZE metrics")
    return connection


async def median_ms(connection: asyncpg.Connection[asyncpg.Record]) -> float:
    took = []
    for _ in range(7):
        began = time.perf_counter()
        await connection.fetch(_QUERY)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


async def test_one_series_is_not_slower_than_from_rows(timescale_url: str, hour: list[MetricBatch]) -> None:
    """The same answer, and at least as fast: rows have to be scanned by time, segments are found by series."""
    async with fresh_database(timescale_url) as other:
        columns = await filled(timescale_url, hour, columns=True)
        rows = await filled(other, hour, columns=False)
        try:
            answers = [await connection.fetch(_QUERY) for connection in (columns, rows)]
            assert answers[0] == answers[1]
            assert len(answers[0]) == 60
            assert sum(row["count"] for row in answers[0]) == sum(batch.rows for batch in hour) // SERIES
            from_columns, from_rows = await median_ms(columns), await median_ms(rows)
            print(f"one series of an hour: {from_columns:.1f} ms from columns, {from_rows:.1f} ms from rows")
            assert from_columns <= from_rows
        finally:
            await columns.close()
            await rows.close()
