"""The column store, written directly, on a real TimescaleDB: results are right, and the server is believed when it
says that it can't."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest
from loguru import logger

from ingestor.errors import DatabaseProblem
from ingestor.model import MetricBatch, Row, label_set
from ingestor.storage.column_store import usable
from ingestor.storage.database import Database
from ingestor.storage.opening import open_database
from ingestor.storage.series import ROWS_PER_SERIES_MIN, arranged
from ingestor.telemetry import Telemetry
from ingestor.timestamps import microseconds
from tests.storage.deliveries import Gateway

NOW = datetime.now(UTC) - timedelta(minutes=30)
LABELS = [label_set({"region": region}) for region in ("eu", "us")]


def rows(seed: int, count: int = 2_000, series: int = 20, spread_s: int = 1200) -> list[Row]:
    """Rows of some series, out of order, over a span that overlaps with every other seed's."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        labels = LABELS[number % 2].id if number % 3 else 0
        time_us = microseconds(NOW) + rng.randrange(-spread_s, spread_s) * 1_000_000 + seed * 7 + number
        name = f"m{number % (series // 4)}"
        made.append(Row(time_us, f"s{number % 4}", name, seed * 1e6 + number, labels))
    return made


def batch(made: list[Row]) -> MetricBatch:
    return MetricBatch.of_rows(made, {each.id: each.document for each in LABELS})


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def database(timescale_url: str, telemetry: Telemetry) -> AsyncIterator[Database]:
    database = await open_database(timescale_url, column_store="on", telemetry=telemetry)
    yield database
    await database.close(5)


@pytest.fixture
async def reader(timescale_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(timescale_url)
    yield connection
    await connection.close()


def count(telemetry: Telemetry, name: str) -> float:
    found = telemetry.registry.get_sample_value(f"ingestor_column_store_{name}_total")
    assert found is not None
    return found


async def store(database: Database, *batches: list[Row]) -> None:
    gateway = Gateway(database)
    for made in batches:
        await gateway.store(batch(made))


async def stored(reader: asyncpg.Connection[asyncpg.Record], order: str = "time, value") -> list[Row]:
    query = f"SELECT time, service_name, metric_name, value, label_set_id FROM metrics ORDER BY {order}"
    return [Row(microseconds(row[0]), *list(row)[1:]) for row in await reader.fetch(query)]


async def test_overlapping_batches_come_back_in_order(
    database: Database, telemetry: Telemetry, reader: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Batches that overlap in time, series by series: every row once, and ORDER BY time is the order of time. (This
    is where a promise of sorted input would break silently.)"""
    made = [rows(seed) for seed in range(5)]
    await store(database, *made)
    expected = sorted((row for part in made for row in part), key=lambda row: (row.time_us, row.value))
    assert await stored(reader) == expected
    times = [row["time"] for row in await reader.fetch("SELECT time FROM metrics ORDER BY time")]
    assert times == sorted(times)
    one = await reader.fetch(
        "SELECT time FROM metrics WHERE service_name = 's1' ORDER BY time DESC LIMIT 500"
    )
    assert [row["time"] for row in one] == sorted((row["time"] for row in one), reverse=True)
    assert count(telemetry, "batches") == 5
    compressed = "SELECT bool_and(is_compressed) FROM timescaledb_information.chunks"
    assert await reader.fetchval(compressed)
    assert await reader.fetchval(
        "SELECT count(*) FROM labeled_metrics WHERE labels->>'region' = 'eu'"
    ) == sum(row.label_set_id == LABELS[0].id for row in expected)


async def test_late_and_concurrent_batches_are_all_there(
    timescale_url: str, database: Database, reader: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Two gateways at once, and rows for chunks that were closed long ago: counts, sums and order are right."""
    other = await open_database(timescale_url, column_store="on")
    late = [
        Row(row.time_us - 40 * 86_400 * 1_000_000, row.service_name, row.metric_name, row.value, 0)
        for row in rows(90)
    ]
    mine, theirs = [rows(seed) for seed in range(4)], [rows(seed) for seed in range(10, 14)]
    await asyncio.gather(store(database, *mine, late), store(other, *theirs))
    expected = [row for part in (*mine, *theirs, late) for row in part]
    assert await stored(reader) == sorted(expected, key=lambda row: (row.time_us, row.value))
    await other.close(5)


async def test_thin_batches_go_into_the_row_store(
    database: Database, telemetry: Telemetry, reader: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Fewer than ten rows a series would leave tiny segments; both kinds of rows are read as one table."""
    thin = [Row(microseconds(NOW) + number, f"s{number}", "m", float(number)) for number in range(100)]
    await store(database, thin, rows(1))
    assert count(telemetry, "batches") == 1
    assert await reader.fetchval("SELECT count(*) FROM metrics") == 2_100


UNIQUE = "CREATE UNIQUE INDEX ON metrics (time, service_name, metric_name, label_set_id, value)"
TRIGGER = """
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noop BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION noop();
"""


@pytest.mark.parametrize("statement", [UNIQUE, TRIGGER])
async def test_the_servers_fallback_is_told_once_and_counted(
    database: Database, telemetry: Telemetry, reader: asyncpg.Connection[asyncpg.Record], statement: str
) -> None:
    """It comes as a WARNING only: rows are stored all the same, an operator learns why they are not compressed."""
    await reader.execute(statement)
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    await store(database, rows(1), rows(2))
    logger.remove(sink)
    assert (count(telemetry, "batches"), count(telemetry, "fallbacks")) == (0, 2)
    [message] = messages
    assert "row store, because the server is disabling direct compress" in message
    assert await reader.fetchval("SELECT count(*) FROM metrics") == 4_000


async def test_setting_up_again_changes_nothing(
    timescale_url: str, database: Database, reader: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Policies are installed once, and what the owner has set stays."""
    jobs = "SELECT proc_name, schedule_interval FROM timescaledb_information.jobs WHERE hypertable_name = 'metrics'"
    before = await reader.fetch(f"{jobs} ORDER BY 1")
    assert "policy_compression" in [row["proc_name"] for row in before]
    await (await open_database(timescale_url, column_store="on")).close(5)
    assert await reader.fetch(f"{jobs} ORDER BY 1") == before


async def test_an_adopted_hypertables_own_settings_stay(timescale_url: str) -> None:
    """Somebody chose another segmentby: it is theirs, and direct COPY works with it."""
    connection = await asyncpg.connect(timescale_url)
    await connection.execute(
        "CREATE EXTENSION IF NOT EXISTS timescaledb;"
        "CREATE TABLE metrics (time timestamptz NOT NULL, service_name text NOT NULL, metric_name text NOT NULL,"
        " value double precision); SELECT create_hypertable('metrics', 'time');"
        "ALTER TABLE metrics SET (timescaledb.compress, timescaledb.compress_segmentby = 'service_name')"
    )
    database = await open_database(timescale_url, column_store="on")
    await store(database, rows(1))
    segmentby = "SELECT string_agg(attname, ',') FROM timescaledb_information.compression_settings"
    found = await connection.fetchval(f"{segmentby} WHERE segmentby_column_index IS NOT NULL")
    assert found == "service_name"
    assert await connection.fetchval("SELECT count(*) FROM metrics") == 2_000
    await connection.close()
    await database.close(5)


@pytest.mark.parametrize(
    ("choice", "version", "hypertable", "expected"),
    [
        ("auto", "2.29.2", True, True),
        ("auto", "2.30.0-dev", True, True),
        ("auto", "3.0", True, True),
        ("auto", "2.28.9", True, False),
        ("auto", "2.29.2", False, False),
        ("auto", None, False, False),
        ("on", "2.21.0", True, True),
        ("off", "2.29.2", True, False),
    ],
)
def test_who_gets_it(choice: str, version: str | None, *, hypertable: bool, expected: bool) -> None:
    """By setting, release and kind of table."""
    assert usable(choice, version, hypertable=hypertable) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("version", "hypertable"), [("2.20.3", True), (None, False), ("2.29.2", False)])
def test_on_where_it_cannot_be_is_refused(version: str | None, *, hypertable: bool) -> None:
    """Asked for outright, it is not silently left out."""
    with pytest.raises(DatabaseProblem, match="COLUMN_STORE=on"):
        usable("on", version, hypertable=hypertable)


def test_a_batch_is_sorted_by_series_and_time_where_it_is_thick_enough() -> None:
    """At the threshold exactly; the rows are the same ones."""
    made = [
        Row(100 - number, f"s{number % 3}", "m", float(number)) for number in range(3 * ROWS_PER_SERIES_MIN)
    ]
    thick = arranged(MetricBatch.of_rows(made, {}))
    assert thick.by_series
    found = thick.columns.to_pylist()
    keys = [(row["service_name"], row["time"]) for row in found]
    assert len({service for service, _ in keys}) == 3
    assert [key for key, other in pairwise(keys) if key[0] == other[0] and key > other] == []
    assert sum(one[0] != other[0] for one, other in pairwise(keys)) == 2
    assert sorted(row["value"] for row in found) == [row.value for row in made]
    assert not arranged(MetricBatch.of_rows(made[:-1], {})).by_series
