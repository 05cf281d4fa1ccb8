"""The contract on a real TimescaleDB, and what needs COPY, several connections or other roles."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from ingestor.errors import DatabaseProblem
from ingestor.model import MetricBatch, Row, label_set
from ingestor.storage.migrate import migrate, migrations
from ingestor.storage.opening import open_database
from ingestor.storage.transactions import AnyConnection, Pool
from ingestor.timestamps import microseconds
from tests.conftest import TIMESCALE, fresh_database
from tests.storage.deliveries import Gateway, opened
from tests.timescale.contract import START, TimescaleContract, chunks_of, first_design, rows_of

_LABELS: list[Mapping[str, str]] = [{}, {"region": "eu"}, {"region": "us", "path": "/ä"}]
_MIGRATORS = 4


@pytest.fixture
async def pool(timescale_url: str) -> AsyncIterator[Pool]:
    """A connection to an empty database."""
    async with asyncpg.create_pool(timescale_url, min_size=1, max_size=1) as created:
        yield created


def batch_of(rows: int) -> MetricBatch:
    """Rows 11 hours apart, with no, one and two labels in turn."""
    sets = [label_set(labels) if labels else None for labels in _LABELS]
    stored = []
    for number in range(rows):
        time = START + timedelta(hours=11 * number, microseconds=number)
        labels = sets[number % len(sets)]
        names = (f"service {number % 5}", f"metric {number % 7}")
        stored.append(Row(microseconds(time), *names, number / 3, labels.id if labels else 0))
    return MetricBatch.of_rows(stored, {labels.id: labels.document for labels in sets if labels})


def rows_in(batch: MetricBatch) -> list[tuple[object, ...]]:
    """A batch's rows as `rows_of` gives those of the table."""
    return [tuple(row.values()) for row in batch.columns.to_pylist()]


class TestServer(TimescaleContract):
    """The server that INGESTOR_TEST_TIMESCALE_URL names."""

    async def test_a_refusal_is_one_line(self, timescale_url: str, pool: Pool) -> None:
        """Who starts the service on an unfit table reads in one line which database, what is wrong and what to
        do."""
        await pool.execute("CREATE TABLE metrics (reading numeric)")
        with pytest.raises(DatabaseProblem) as refusal:
            await open_database(timescale_url)
        text = str(refusal.value)
        assert "\n" not in text
        for part in (urlsplit(timescale_url).path, "it lacks metric_name text", "Rename it"):
            assert part in text

    async def test_migrating_at_once(self, timescale_url: str) -> None:
        """Of several gateways that migrate the same empty database at once all succeed, and each migration is
        applied by one of them."""
        async with AsyncExitStack() as stack:
            pools = [
                await stack.enter_async_context(asyncpg.create_pool(timescale_url, min_size=1, max_size=1))
                for _ in range(_MIGRATORS)
            ]
            applied = await asyncio.gather(*map(migrate, pools))
            ledger = await pools[0].fetch("SELECT version FROM ingestor_migrations ORDER BY version")
        known = [one.version for one in migrations()]
        assert sorted(one.version for own in applied for one in own) == known
        assert [row["version"] for row in ledger] == known


class TestCopy:
    """MetricRepository on a hypertable."""

    async def test_a_batch_over_many_chunks(self, timescale_url: str, pool: Pool) -> None:
        """A batch whose rows lie in many chunks is stored whole, and comes back equal, to the microsecond and
        the last bit."""
        batch = batch_of(500)
        async with opened(timescale_url) as database:
            await Gateway(database).store(batch)
        assert await rows_of(pool) == rows_in(batch)
        assert await chunks_of(pool) > 10

    async def test_labels_are_stored_once(self, timescale_url: str, pool: Pool) -> None:
        """A label set is stored once, however many rows, batches and gateways name it, and labeled_metrics gives
        each row its own."""
        batch = batch_of(6)
        async with opened(timescale_url) as one, opened(timescale_url) as other:
            first = Gateway(one)
            for gateway in (first, first, Gateway(other)):
                await gateway.store(batch)
        found = await pool.fetch("SELECT labels FROM labeled_metrics ORDER BY time")
        assert [json.loads(row["labels"]) for row in found] == [
            labels for labels in _LABELS * 2 for _ in range(3)
        ]
        assert await pool.fetchval("SELECT count(*) FROM label_sets") == 2

    async def test_rows_that_a_chunk_refuses_are_set_aside(self, timescale_url: str, pool: Pool) -> None:
        """Of a batch over many chunks, which a CHECK of the hypertable refuses in part, the other rows are stored
        and those are dead letters, each with its reason."""
        batch = batch_of(100)
        async with opened(timescale_url) as database:
            await pool.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 30)")
            outcome = await Gateway(database).store(batch)
        assert [each.row for each in outcome.dead] == list(range(90, 100))
        assert await rows_of(pool) == rows_in(batch)[:90]
        reasons = await pool.fetch("SELECT DISTINCT reason FROM dead_letters WHERE sqlstate = '23514'")
        assert len(reasons) >= 1
        assert all("low" in found["reason"] for found in reasons)

    async def test_late_rows_for_the_column_store(self, timescale_url: str, pool: Pool) -> None:
        """Rows for chunks that are compressed already are stored like all others, labels and all; here in an
        adopted table, which was compressed before it had labels."""
        old = [(*row, 0) for row in await first_design(pool, 30, hypertable=True)]
        await pool.execute(
            "ALTER TABLE metrics SET (timescaledb.compress, timescaledb.compress_segmentby = 'service_name')"
        )
        await pool.execute("SELECT compress_chunk(chunk) FROM show_chunks('metrics') AS chunk")
        batch = batch_of(60)
        async with opened(timescale_url) as database:
            await Gateway(database).store(batch)
        assert sorted(await rows_of(pool), key=str) == sorted([*old, *rows_in(batch)], key=str)


class Role(NamedTuple):
    """A database, and a role with few rights, each as the address to connect with."""

    admin_url: str
    url: str
    name: str


@pytest.fixture
async def role() -> AsyncIterator[Role]:
    """A role that may make tables in an empty database's schema `public`, and nothing else."""
    server = os.environ.get(TIMESCALE) or pytest.skip(f"{TIMESCALE} names no TimescaleDB server")
    name, password = f"ingestor_test_{os.getpid()}_role", secrets.token_hex(16)
    await _execute(server, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    try:
        async with fresh_database(server) as admin_url:
            await _execute(admin_url, f"GRANT CREATE ON SCHEMA public TO {name}")
            parts = urlsplit(admin_url)
            host = parts.netloc.rpartition("@")[2]
            url = urlunsplit(parts._replace(netloc=f"{name}:{password}@{host}"))
            yield Role(admin_url, url, name)
    finally:
        await _execute(server, f"DROP ROLE {name}")


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


class TestRoles:
    """What the service makes of an empty database by the rights that its role has. The extension is a trusted one:
    superuser or not, it takes CREATE on the database to make it."""

    async def test_without_the_right_to_make_the_extension(self, role: Role) -> None:
        """A role that may not make the extension is warned and gets a partitioned table, which works."""
        warnings: list[str] = []

        def heard(_: AnyConnection, message: asyncpg.PostgresLogMessage) -> None:
            warnings.append(str(message))

        connection = await asyncpg.connect(role.url)
        connection.add_log_listener(heard)
        await connection.execute(migrations()[0].sql)
        await connection.close()
        batch = batch_of(100)
        async with opened(role.url) as database:
            await Gateway(database).store(batch)
            stored = await database.transactions.execute("SELECT count(*) FROM metrics")
        assert [text for text in warnings if "may not create the extension timescaledb" in text]
        assert (database.facts.table, database.facts.timescaledb) == ("partitioned", None)
        assert stored == batch.rows

    async def test_with_create_on_the_database(self, role: Role) -> None:
        """A role that may create in the database, superuser or not, makes the extension and gets a hypertable."""
        name = urlsplit(role.admin_url).path.lstrip("/")
        await _execute(role.admin_url, f"GRANT CREATE ON DATABASE {name} TO {role.name}")
        async with opened(role.url) as database:
            await Gateway(database).store(batch_of(100))
        assert database.facts.table == "hypertable"

    async def test_with_an_administrators_extension(self, role: Role) -> None:
        """Where an administrator has made the extension, in a schema of its own even, a role without rights on
        the database gets a hypertable."""
        await _execute(
            role.admin_url,
            "CREATE SCHEMA tools",
            "CREATE EXTENSION timescaledb SCHEMA tools",
            f"GRANT USAGE ON SCHEMA tools TO {role.name}",
        )
        async with opened(role.url) as database:
            await Gateway(database).store(batch_of(100))
        assert database.facts.table == "hypertable"
