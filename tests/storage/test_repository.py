"""MetricRepository on a real PostgreSQL: all of a batch or nothing, and whose fault a failure is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from ingestor.errors import SchemaProblem, StorageUnavailable
from ingestor.model import MetricBatch, Row, label_set
from ingestor.storage.database import Database
from ingestor.storage.opening import open_database
from ingestor.timestamps import microseconds
from tests.storage.deliveries import NOW, Gateway, Reader

Stored = list[tuple[datetime, str, str, float]]


def batch(*rows: tuple[datetime, str, str, float]) -> MetricBatch:
    return MetricBatch.of_rows([Row(microseconds(time), *rest) for time, *rest in rows], {})  # type: ignore[arg-type]


async def stored(reader: Reader) -> Stored:
    rows = await reader.fetch(
        "SELECT time, service_name, metric_name, value FROM metrics ORDER BY time, value"
    )
    return [tuple(row) for row in rows]


async def test_rows_come_back_as_they_went_in(database: Database, reader: Reader) -> None:
    """Microseconds, Unicode, signed zeros and the largest doubles survive COPY."""
    rows = [
        (NOW, "a", "b", 1.5),
        (NOW + timedelta(microseconds=1), "ünï", "漢字 \U0001f600", -1.7976931348623157e308),
        (NOW + timedelta(seconds=1), "tab-less", 'quote"\\', 5e-324),
    ]
    await Gateway(database).store(batch(*rows))
    assert await stored(reader) == rows


async def test_large_batches_arrive_whole(database: Database, reader: Reader) -> None:
    """Every row of a batch of several slices is there, once."""
    rows = [Row(microseconds(NOW) + number, "s", "m", float(number)) for number in range(50_001)]
    await Gateway(database).store(MetricBatch.of_rows(rows, {}))
    assert tuple(
        await reader.fetchrow("SELECT count(*), count(DISTINCT value), sum(value) FROM metrics") or ()
    ) == (
        50_001,
        50_001,
        sum(range(50_001)),
    )


async def test_weeks_get_their_partitions(database: Database, reader: Reader) -> None:
    """A batch may span years, and its rows lie in the partition of their week, Monday to Monday in UTC."""
    moments = [
        datetime(2026, 11, 22, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 11, 23, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 0, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    ]
    await Gateway(database).store(batch(*((moment, "s", "m", 1.0) for moment in moments)))
    found = await reader.fetch("SELECT tableoid::regclass::text AS name FROM metrics ORDER BY time")
    assert [row["name"] for row in found] == [
        "metrics_1970w01",
        "metrics_2026w47",
        "metrics_2026w48",
        "metrics_2026w53",
    ]


async def test_weeks_are_those_of_utc_whatever_the_servers_time_zone(
    database_url: str, reader: Reader
) -> None:
    """Also the two weeks in which clocks change, which have 167 and 169 hours there: no gap, no overlap."""
    name = await reader.fetchval("SELECT current_database()")
    await reader.execute(f"ALTER DATABASE {name} SET timezone = 'Europe/Berlin'")
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SHOW timezone") == "Europe/Berlin"
    database = await open_database(database_url)
    # Not only through our own connections, which say UTC: the function must hold for others, too.
    for monday in (datetime(2026, 3, 23, tzinfo=UTC), datetime(2026, 10, 19, tzinfo=UTC)):
        for week in (monday, monday + timedelta(weeks=1)):
            assert await connection.fetchval("SELECT ensure_metrics_partition($1)", week)
        edge = monday + timedelta(weeks=1)
        rows = [(edge - timedelta(microseconds=1), "s", "m", 1.0), (edge, "s", "m", 2.0)]
        await Gateway(database).store(batch(*rows))
    assert await connection.fetchval("SELECT count(*) FROM metrics") == 4
    await connection.close()
    await database.close(5)


async def test_a_dropped_partition_is_made_again(database: Database, reader: Reader) -> None:
    """Retention drops old weeks while the server runs: late rows for them are the schema's fault, and retryable."""
    gateway = Gateway(database)
    await gateway.store(batch((NOW, "s", "m", 1.0)))
    await reader.execute("DROP TABLE metrics_2026w48")
    with pytest.raises(SchemaProblem, match="no partition"):
        await gateway.store(batch((NOW, "s", "m", 2.0)))
    await gateway.store(batch((NOW, "s", "m", 2.0)))
    assert await stored(reader) == [(NOW, "s", "m", 2.0)]


async def test_a_detached_partition_is_named(database: Database, reader: Reader) -> None:
    """A table that stands in the way is never written to nor dropped; the failure names it."""
    await Gateway(database).store(batch((NOW, "s", "m", 1.0)))
    await reader.execute("ALTER TABLE metrics DETACH PARTITION metrics_2026w48")
    with pytest.raises(SchemaProblem, match="metrics_2026w48 exists, but is not a partition"):
        await Gateway(database).store(batch((NOW, "s", "m", 2.0)))


async def test_two_gateways_make_the_same_partition_at_once(database_url: str) -> None:
    """Neither fails, and each partition is made once."""
    databases = [await open_database(database_url) for _ in range(2)]
    rows = [(NOW + timedelta(weeks=number), "s", "m", 1.0) for number in range(10)]
    await asyncio.gather(*(Gateway(each).store(batch(*rows)) for each in databases))
    assert await databases[0].transactions.execute("SELECT count(*) FROM metrics") == 20
    for each in databases:
        await each.close(5)


async def test_labels_are_stored_once_per_set(database: Database, reader: Reader) -> None:
    """Rows carry ids, the sets lie apart, and the view joins them."""
    sets = [label_set({"region": "eu", "odd": 'q"\\\u2028é'}), label_set({"region": "us"})]
    documents = {each.id: each.document for each in sets}
    rows = [Row(microseconds(NOW) + n, "s", "m", 1.0, sets[n % 2].id) for n in range(4)]
    rows.append(Row(microseconds(NOW) + 9, "s", "m", 1.0))
    gateway = Gateway(database)
    for _ in range(2):  # the second time from what is remembered
        await gateway.store(MetricBatch.of_rows(rows, documents))
    assert await reader.fetchval("SELECT count(*) FROM label_sets") == 2
    found = await reader.fetch(
        "SELECT labels->>'region' AS region, count(*) AS n FROM labeled_metrics GROUP BY 1"
    )
    assert {row["region"]: row["n"] for row in found} == {"eu": 4, "us": 4, None: 2}
    assert (
        await reader.fetchval("SELECT labels->>'odd' FROM label_sets WHERE labels ? 'odd'") == 'q"\\\u2028é'
    )


async def test_two_gateways_insert_the_same_label_sets_at_once(database_url: str) -> None:
    """In whatever order they met them: no deadlock, no duplicate."""
    sets = [label_set({"n": str(number)}) for number in range(500)]
    databases = [await open_database(database_url) for _ in range(2)]

    async def insert(database: Database, *, backwards: bool) -> None:
        ordered = sets[::-1] if backwards else sets
        rows = [Row(microseconds(NOW), "s", "m", 1.0, each.id) for each in ordered]
        documents = {each.id: each.document for each in ordered}
        await Gateway(database).store(MetricBatch.of_rows(rows, documents))

    await asyncio.gather(*(insert(each, backwards=bool(n)) for n, each in enumerate(databases)))
    assert await databases[0].transactions.execute("SELECT count(*) FROM label_sets") == 500
    for each in databases:
        await each.close(5)


async def test_a_missing_table_is_not_the_rows_fault(database: Database, reader: Reader) -> None:
    """SQLSTATE 42P01: whoever dropped the table may bring it back, and the rows are kept for it."""
    await reader.execute("DROP VIEW labeled_metrics; DROP TABLE metrics")
    with pytest.raises(SchemaProblem, match="metrics"):
        await Gateway(database).store(batch((NOW, "s", "m", 1.0)))


async def test_a_killed_connection_is_retryable(database: Database, reader: Reader) -> None:
    """The backend ends while COPY waits for a lock: StorageUnavailable, nothing stored, and the next try works."""
    gateway = Gateway(database)
    await gateway.store(batch((NOW, "s", "m", 1.0)))
    async with reader.transaction():
        await reader.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        rows = [Row(microseconds(NOW), "s" * 200, "m", 2.0)] * 20_000  # more than fits into socket buffers
        storing = asyncio.create_task(gateway.store(MetricBatch.of_rows(rows, {})))
        while not await reader.fetchval(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%' AND datname = current_database()"
        ):
            # Inside a transaction the view is a snapshot, made when it is first read.
            await reader.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.005)
        with pytest.raises(StorageUnavailable):
            await asyncio.wait_for(storing, 10)
    assert len(await stored(reader)) == 1
    await gateway.store(batch((NOW, "s", "m", 3.0)))
    assert len(await stored(reader)) == 2


async def test_an_adopted_ordinary_table_is_written_to(database_url: str, reader: Reader) -> None:
    """The first design's table, with its rows: rows are added, none is changed, no partition is made."""
    await reader.execute(
        "CREATE TABLE metrics (time timestamptz NOT NULL, service_name text NOT NULL,"
        " metric_name text NOT NULL, value double precision)"
    )
    await reader.execute("INSERT INTO metrics VALUES ($1, 'old', 'row', 1)", NOW)
    database = await open_database(database_url)
    assert database.facts.table == "ordinary"
    await Gateway(database).store(batch((NOW + timedelta(seconds=1), "new", "row", 2.0)))
    assert [row[1] for row in await stored(reader)] == ["old", "new"]
    await database.close(5)


async def test_commits_are_durable_whatever_the_servers_default(database_url: str, reader: Reader) -> None:
    """The writer sets synchronous_commit for itself."""
    name = await reader.fetchval("SELECT current_database()")
    await reader.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    database = await open_database(database_url)
    assert await database.transactions.execute("SHOW synchronous_commit") == "on"
    await database.close(5)
