"""Migrations and opening a database, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from ingestor.errors import DatabaseProblem
from ingestor.model import MetricBatch, Row, label_set
from ingestor.storage.explaining import redacted
from ingestor.storage.migrate import migrations
from ingestor.storage.opening import inspect, open_database
from ingestor.timestamps import microseconds
from tests.storage.deliveries import Gateway

FIRST_DESIGN = (
    "CREATE TABLE metrics (time timestamptz NOT NULL, service_name text NOT NULL,"
    " metric_name text NOT NULL, value double precision)"
)


async def run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


def test_migrations_are_numbered_without_gaps() -> None:
    """1, 2, 3 ...: a gap would be a file that somebody forgot to commit."""
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


async def test_an_empty_database_gets_the_schema(database_url: str) -> None:
    """A table partitioned by time, with the first design's columns and its index, and the view."""
    database = await open_database(database_url)
    assert [migration.version for migration in database.applied] == [m.version for m in migrations()]
    assert database.facts.table == "partitioned"
    assert database.facts.timescaledb is None
    execute = database.transactions.execute
    assert await execute("SELECT pg_get_partkeydef('metrics'::regclass)") == 'RANGE ("time")'
    index = await execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'metrics_time_idx'")
    assert index.endswith('("time" DESC)')
    assert await execute("SELECT count(*) FROM labeled_metrics") == 0
    await database.close(5)


async def test_a_second_start_applies_nothing(database_url: str) -> None:
    """What is applied is remembered in the database."""
    await (await open_database(database_url)).close(5)
    database = await open_database(database_url)
    assert database.applied == []
    await database.close(5)


async def test_many_processes_may_migrate_at_once(database_url: str) -> None:
    """Each migration is applied by one of them, and none fails."""
    databases = await asyncio.gather(*(open_database(database_url) for _ in range(5)))
    applied = sorted(migration.version for database in databases for migration in database.applied)
    assert applied == [migration.version for migration in migrations()]
    assert {database.facts.table for database in databases} == {"partitioned"}
    await asyncio.gather(*(database.close(5) for database in databases))


async def test_inspecting_changes_nothing(database_url: str) -> None:
    """`check` may be run against production."""
    for _ in range(2):
        facts, pending = await inspect(database_url)
        assert facts.table == "absent"
        assert pending == migrations()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("CREATE VIEW metrics AS SELECT 1 AS one", "no ordinary table"),
        (
            "CREATE TABLE metrics (time timestamptz, service_name text, value float8)",
            "it lacks metric_name text",
        ),
        (FIRST_DESIGN.replace("timestamptz", "timestamp"), "it lacks time timestamp with time zone"),
        (FIRST_DESIGN.replace("value", "host text NOT NULL, value"), "nothing would fill its column host"),
        (FIRST_DESIGN + " PARTITION BY RANGE (time)", "no ordinary table"),
        (FIRST_DESIGN.replace("value", "label_set_id int, value"), "its label_set_id is integer, not bigint"),
        (
            FIRST_DESIGN.replace("precision)", "precision, UNIQUE (time))"),
            "its unique index metrics_time_key",
        ),
    ],
)
async def test_an_unfit_table_is_refused_with_the_reason(
    database_url: str, statement: str, problem: str
) -> None:
    """One line that names the problem; the database is left as it was."""
    await run(database_url, statement)
    before = await columns_of_metrics(database_url)
    with pytest.raises(DatabaseProblem, match=problem) as caught:
        await open_database(database_url)
    assert "\n" not in str(caught.value)
    assert await columns_of_metrics(database_url) == before


async def columns_of_metrics(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT attname FROM pg_attribute WHERE attrelid = 'metrics'::regclass")
    await connection.close()
    return [row["attname"] for row in rows]


async def test_the_first_designs_table_is_adopted(database_url: str) -> None:
    """It keeps its rows and gains label_set_id, with further columns that fill themselves left alone."""
    await run(
        database_url,
        FIRST_DESIGN.replace("value", "id bigint GENERATED ALWAYS AS IDENTITY, note text, value"),
        "INSERT INTO metrics (time, service_name, metric_name, value) VALUES (now(), 's', 'm', 1)",
    )
    database = await open_database(database_url)
    assert database.facts.table == "ordinary"
    assert await database.transactions.execute("SELECT labels::text FROM labeled_metrics") == "{}"
    await database.close(5)


async def test_after_renaming_an_unfit_table_the_schema_is_made(database_url: str) -> None:
    """The hint works, although the renamed table keeps the index's name."""
    await run(
        database_url,
        FIRST_DESIGN.replace("value", "host text NOT NULL, value"),
        "CREATE INDEX metrics_time_idx ON metrics (time DESC)",
        "ALTER TABLE metrics RENAME TO old_metrics",
    )
    database = await open_database(database_url)
    assert database.facts.table == "partitioned"
    await database.close(5)


async def test_a_newer_schema_is_refused(database_url: str) -> None:
    """After a roll-back of the program, not of the database: say so instead of guessing."""
    await (await open_database(database_url)).close(5)
    await run(database_url, "INSERT INTO ingestor_migrations VALUES (9999, 'from_the_future')")
    with pytest.raises(DatabaseProblem, match="newer release"):
        await open_database(database_url)


async def test_a_role_without_rights_is_told_what_to_do(database_url: str) -> None:
    """Migrating needs to own the schema; storing in a migrated database needs a few grants, which are named."""
    name = redacted(database_url).rpartition("/")[2]
    role = f"writer_{name}"
    await run(database_url, f"CREATE ROLE {role} LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    as_role = database_url.replace("ingestor@", f"{role}@").replace("user=ingestor", f"user={role}")
    try:
        with pytest.raises(DatabaseProblem, match="ingestor migrate"):
            await open_database(as_role)
        await (await open_database(database_url)).close(5)
        await run(database_url, f"GRANT SELECT ON ingestor_migrations TO {role}")
        with pytest.raises(
            DatabaseProblem, match="GRANT INSERT ON metrics TO .*; GRANT SELECT, INSERT ON label_sets"
        ) as told:
            await open_database(as_role)
        await run(database_url, str(told.value).partition("lacks rights to store: ")[2])
        database = await open_database(as_role)
        assert database.facts.role == role
        labels = label_set({"a": "b"})
        row = Row(microseconds(datetime.now(UTC)), "s", "m", 1.0, labels.id)
        gateway = Gateway(database)
        await gateway.store(MetricBatch.of_row(row, {labels.id: labels.document}))
        assert await database.adopt_cursor(gateway.journal, 7, durable=True) == 7
        await database.close(5)
    finally:
        await run(database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/d", "127.0.0.1:1/d can't be used.*refused.*DATABASE_URL"),
        ("postgresql://u:hunter2@nowhere.invalid/d", "nowhere.invalid/d can't be used"),
        ("postgresql://u:hunter2@127.0.0.1:port/d", "can't be used"),
    ],
)
async def test_an_unreachable_server_is_one_line_without_the_password(url: str, problem: str) -> None:
    """Host, port and database are shown, and what to look at; user and password never."""
    with pytest.raises(DatabaseProblem, match=problem) as caught:
        await open_database(url)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_missing_database_is_named(postgres: str) -> None:
    """SQLSTATE 3D000, with the remedy."""
    url = postgres.replace("/ingestor?", "/nothere?")
    assert url != postgres
    with pytest.raises(DatabaseProblem, match='"nothere" does not exist.*create the database'):
        await open_database(url)


async def test_the_schema_may_be_another_than_public(database_url: str) -> None:
    """The functions that run as their owner find and make tables there, whatever the caller's search_path."""
    connection = await asyncpg.connect(database_url)
    here = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.close()
    await run(
        database_url, 'CREATE SCHEMA "My own"', f'ALTER DATABASE {here} SET search_path TO "My own", public'
    )
    await (await open_database(database_url)).close(5)
    await run(
        database_url,
        "SET search_path TO public",
        """SELECT "My own".ensure_metrics_partition(date_trunc('week', now(), 'UTC'))""",
        'SELECT "My own".ingestor_summarize_metrics()',
        """DO $$ BEGIN ASSERT (SELECT count(*) = 1 FROM pg_inherits
          WHERE inhparent = '"My own".metrics'::regclass); END $$""",
    )
