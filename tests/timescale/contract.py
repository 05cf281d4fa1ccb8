"""What holds on any TimescaleDB, be it a server or WebAssembly: a mixin for a class whose module has `pool`.

It needs one connection to an empty database, and no COPY.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from ingestor.storage.facts import facts
from ingestor.storage.migrate import migrate, migrations
from ingestor.storage.transactions import Pool

FIRST_DESIGN = """
CREATE TABLE metrics (
  time timestamptz NOT NULL,
  service_name text NOT NULL,
  metric_name text NOT NULL,
  value double precision NOT NULL
)
"""
"""The table as it was first drawn, before labels."""

START = datetime(2026, 1, 5, tzinfo=UTC)

COLUMNS = [
    ("time", "timestamp with time zone", "NO", None),
    ("service_name", "text", "NO", None),
    ("metric_name", "text", "NO", None),
    ("value", "double precision", "YES", None),
    ("label_set_id", "bigint", "NO", "0"),
]

_UNFIT = {
    "a missing column": (
        "CREATE TABLE metrics (time timestamptz NOT NULL, service_name text, value double precision)",
        "it lacks metric_name text",
    ),
    "a wrong type": (
        "CREATE TABLE metrics (time timestamptz, service_name text, metric_name text, value numeric)",
        "it lacks value double precision",
    ),
    "a column that nothing would fill": (
        f"{FIRST_DESIGN}; ALTER TABLE metrics ADD COLUMN region text NOT NULL",
        "nothing would fill its column region",
    ),
    "a narrower label_set_id": (
        f"{FIRST_DESIGN}; ALTER TABLE metrics ADD COLUMN label_set_id integer NOT NULL DEFAULT 0",
        "its label_set_id is integer, not bigint",
    ),
    "two faults at once": (
        "CREATE TABLE metrics (time timestamp, service_name text, metric_name text)",
        "it lacks time timestamp with time zone, it lacks value double precision",
    ),
    "a view": (
        "CREATE VIEW metrics AS SELECT now() AS time, 'api' AS service_name",
        'the "metrics" in this database is no ordinary table or hypertable',
    ),
}


async def first_design(pool: Pool, rows: int, *, hypertable: bool) -> list[tuple[object, ...]]:
    """Makes the first design's table, with that many rows, a day apart; returns them."""
    stored = [(START + timedelta(days=day), "api", f"metric {day % 3}", day / 7) for day in range(rows)]
    if hypertable:
        await pool.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    await pool.execute(FIRST_DESIGN)
    if hypertable:
        await pool.execute("SELECT create_hypertable('metrics', 'time')")
    await pool.executemany("INSERT INTO metrics VALUES ($1, $2, $3, $4)", stored)
    return list(stored)


async def rows_of(pool: Pool) -> list[tuple[object, ...]]:
    """All rows, by time."""
    found = await pool.fetch(
        "SELECT time, service_name, metric_name, value, label_set_id FROM metrics ORDER BY time"
    )
    return [tuple(row) for row in found]


async def chunks_of(pool: Pool) -> int:
    """How many chunks the hypertable has."""
    chunks: int = await pool.fetchval("SELECT count(*) FROM show_chunks('metrics')")
    return chunks


class TimescaleContract:
    """The migrations, and what they make of a database."""

    async def test_every_migration_applies(self, pool: Pool) -> None:
        """An empty database takes all migrations, in order, and writes each down once."""
        applied = await migrate(pool)
        ledger = await pool.fetch("SELECT version, name FROM ingestor_migrations ORDER BY version")
        assert applied == migrations()
        assert [tuple(row) for row in ledger] == [(one.version, one.name) for one in migrations()]

    async def test_nothing_is_applied_twice(self, pool: Pool) -> None:
        """A second migrate applies nothing."""
        await migrate(pool)
        assert await migrate(pool) == []

    async def test_metrics_is_a_hypertable(self, pool: Pool) -> None:
        """`metrics` is a hypertable on time alone, has the columns that are COPYed, and one index: by time, the
        newest first, and not unique."""
        await migrate(pool)
        dimensions = await pool.fetch(
            "SELECT column_name FROM timescaledb_information.dimensions WHERE hypertable_name = 'metrics'"
        )
        columns = await pool.fetch(
            "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = 'metrics' ORDER BY ordinal_position"
        )
        indexes = await pool.fetch(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'metrics'"
        )
        assert [row["column_name"] for row in dimensions] == ["time"]
        assert [tuple(row) for row in columns] == COLUMNS
        assert [row["indexdef"] for row in indexes] == [
            'CREATE INDEX metrics_time_idx ON public.metrics USING btree ("time" DESC)'
        ]

    async def test_facts_follow_the_database(self, pool: Pool) -> None:
        """facts() tells the versions that the server tells, none of an extension that isn't there yet, and that
        the table is absent and then a hypertable."""
        async with pool.acquire() as connection:
            before = await facts(connection)
        await migrate(pool)
        async with pool.acquire() as connection:
            after = await facts(connection)
        major = await pool.fetchval("SELECT current_setting('server_version_num')::int / 10000")
        extension = await pool.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
        assert (before.table, before.timescaledb) == ("absent", None)
        assert (after.table, after.timescaledb) == ("hypertable", extension)
        assert after.postgresql.startswith(f"{major}.")
        assert f"with TimescaleDB {extension}" in str(after)

    async def test_first_design_hypertable_is_adopted(self, pool: Pool) -> None:
        """The first design's hypertable keeps its rows and its chunks, and each row gets label_set_id 0."""
        stored = await first_design(pool, 30, hypertable=True)
        chunks = await chunks_of(pool)
        await migrate(pool)
        assert await rows_of(pool) == [(*row, 0) for row in stored]
        assert await chunks_of(pool) == chunks > 1

    async def test_column_store_is_adopted(self, pool: Pool) -> None:
        """The first design's hypertable is adopted as well when its chunks are compressed, and keeps them so."""
        stored = await first_design(pool, 30, hypertable=True)
        await pool.execute(
            "ALTER TABLE metrics SET (timescaledb.compress, timescaledb.compress_segmentby = 'service_name')"
        )
        await pool.execute("SELECT compress_chunk(chunk) FROM show_chunks('metrics') AS chunk")
        await migrate(pool)
        compressed = await pool.fetchval(
            "SELECT bool_and(is_compressed) FROM timescaledb_information.chunks WHERE hypertable_name = 'metrics'"
        )
        assert await rows_of(pool) == [(*row, 0) for row in stored]
        assert compressed

    async def test_empty_table_becomes_a_hypertable(self, pool: Pool) -> None:
        """The first design's table without rows becomes a hypertable with label_set_id."""
        await first_design(pool, 0, hypertable=False)
        await migrate(pool)
        async with pool.acquire() as connection:
            assert (await facts(connection)).table == "hypertable"
        await pool.execute("INSERT INTO metrics VALUES ($1, 'api', 'latency', 1.5)", START)
        assert await rows_of(pool) == [(START, "api", "latency", 1.5, 0)]

    async def test_table_with_rows_stays_ordinary(self, pool: Pool) -> None:
        """The first design's table with rows gets label_set_id, keeps its rows, and is not rewritten: it stays
        an ordinary table, and facts() says so."""
        stored = await first_design(pool, 3, hypertable=False)
        file = await pool.fetchval("SELECT pg_relation_filenode('metrics')")
        await migrate(pool)
        async with pool.acquire() as connection:
            assert (await facts(connection)).table == "ordinary"
        assert await rows_of(pool) == [(*row, 0) for row in stored]
        assert await pool.fetchval("SELECT pg_relation_filenode('metrics')") == file

    @pytest.mark.parametrize(("definition", "complaint"), _UNFIT.values(), ids=_UNFIT.keys())
    async def test_unfit_table_is_refused(self, pool: Pool, definition: str, complaint: str) -> None:
        """A `metrics` that can't take our rows is refused with what is wrong with it and what to do, and stays
        as it was."""
        await pool.execute(definition)
        columns = "SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = 'metrics'::regclass"
        before = await pool.fetchval(columns)
        with pytest.raises(asyncpg.RaiseError) as refusal:
            await migrate(pool)
        assert complaint in str(refusal.value)
        assert refusal.value.hint == "Rename it, or name another database."
        assert await pool.fetchval(columns) == before

    async def test_renaming_an_unfit_table_helps(self, pool: Pool) -> None:
        """Who follows the refusal's hint gets the rest of the migrations, though the old table keeps its index and
        with it the name of ours."""
        await pool.execute("CREATE TABLE metrics (time timestamptz NOT NULL, reading numeric)")
        await pool.execute("CREATE INDEX metrics_time_idx ON metrics (time)")
        with pytest.raises(asyncpg.RaiseError):
            await migrate(pool)
        await pool.execute("ALTER TABLE metrics RENAME TO old_metrics")
        assert [one.version for one in await migrate(pool)] == [one.version for one in migrations()[1:]]
        assert await pool.fetchval("SELECT count(*) FROM old_metrics") == 0

    async def test_labeled_metrics_joins(self, pool: Pool) -> None:
        """The view shows each row once, with its labels; {} where it has none, or their set is unknown."""
        await migrate(pool)
        labels = {"region": "eu", "path": "/ä"}
        await pool.execute("INSERT INTO label_sets VALUES (7, $1::jsonb)", json.dumps(labels))
        await pool.executemany(
            "INSERT INTO metrics VALUES ($1, 'api', 'latency', $2, $3)",
            [(START + timedelta(days=20 * row), float(row), id_) for row, id_ in enumerate([7, 0, 8, 7])],
        )
        found = await pool.fetch("SELECT value, labels FROM labeled_metrics ORDER BY time")
        assert [(row["value"], json.loads(row["labels"])) for row in found] == [
            (0.0, labels),
            (1.0, {}),
            (2.0, {}),
            (3.0, labels),
        ]
