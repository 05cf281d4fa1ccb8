"""The journal's cursor: it moves with the rows or not at all, and tells what became of a delivery whose answer was
lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from ingestor.errors import CursorElsewhere, SchemaProblem, StorageUnavailable
from ingestor.model import Outcome
from ingestor.model.delivery import NOTHING
from ingestor.storage.database import Database
from tests.conftest import fresh_database
from tests.storage.cutting_proxy import CuttingProxy, cutting
from tests.storage.deliveries import (
    Gateway,
    Reader,
    batch_of,
    count_in,
    delivery_of,
    opened,
    placed,
    states,
    until,
    values_in,
)

_SMALL = "ALTER TABLE metrics ADD CONSTRAINT small CHECK (value < 100)"
_SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON request_ids DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION slow();
"""
_KILL_COMMIT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE query LIKE '%COMMIT' AND wait_event = 'PgSleep' AND datname = current_database()
"""


@pytest.fixture
async def proxied(database_url: str) -> AsyncIterator[tuple[Gateway, CuttingProxy]]:
    """A gateway whose connections may be cut."""
    async with cutting(database_url) as (url, proxy), opened(url) as database:
        yield Gateway(database), proxy


async def test_the_cursor_moves_in_the_transaction_of_the_rows(gateway: Gateway, reader: Reader) -> None:
    """Rows, request ids and cursor are one transaction's, delivery by delivery."""
    for position in (1, 2):
        await gateway.store(batch_of(1.0), [placed(0, 1, f"r{position}")])
        assert await gateway.cursor() == position
    moved = "SELECT xmin::text FROM ingestor_journals WHERE journal = $1"
    last = await reader.fetchval(moved, gateway.journal)
    assert last == await reader.fetchval("SELECT xmin::text FROM request_ids WHERE id = 'r2'")
    assert last in [found[0] for found in await reader.fetch("SELECT xmin::text FROM metrics")]


async def test_what_fails_moves_nothing(gateway: Gateway, reader: Reader) -> None:
    """A delivery that was rolled back leaves the cursor before it; then it is stored, once."""
    await gateway.store(batch_of(1.0))
    await reader.execute("ALTER TABLE metrics RENAME TO away")
    with pytest.raises(SchemaProblem):
        await gateway.store(batch_of(2.0), [placed(0, 1, "r")])
    assert (await gateway.cursor(), await count_in(reader, "request_ids")) == (1, 0)
    await reader.execute("ALTER TABLE away RENAME TO metrics")
    assert await gateway.store(batch_of(2.0), [placed(0, 1, "r")]) == Outcome([], [], [])
    assert (await gateway.cursor(), await values_in(reader)) == (2, [1.0, 2.0])


@pytest.mark.parametrize("passed_on", [True, False], ids=["answer lost", "COMMIT lost"])
async def test_a_connection_cut_at_commit_stores_once(
    proxied: tuple[Gateway, CuttingProxy], reader: Reader, *, passed_on: bool
) -> None:
    """Nobody can tell whether it was committed, but the cursor can: the next attempt stores it if it was not, and
    says in both cases which rows are dead and which requests are duplicates."""
    gateway, proxy = proxied
    await gateway.store(batch_of(1.0), [placed(0, 1, "known")])
    await reader.execute(_SMALL)
    batch = batch_of(1.0, 2.0, 200.0, 3.0, 300.0, 4.0)
    requests = [
        placed(0, 1, "known"),
        placed(1, 2, "new"),
        placed(3, 1, "known", asks="other"),
        placed(4, 1, "poison"),
    ]
    proxy.cut_commit(passed_on=passed_on)
    with pytest.raises(StorageUnavailable):
        await gateway.store(batch, requests)
    assert await gateway.cursor() == (2 if passed_on else 1)
    assert len(await values_in(reader)) == (3 if passed_on else 1)

    outcome = await gateway.store(batch, requests)

    assert proxy.cuts == 1
    assert states(outcome.dead) == [(2, "23514"), (3, None), (4, "23514")]
    assert list(outcome.duplicates) == [0]
    assert await values_in(reader) == [1.0, 2.0, 4.0]
    assert await count_in(reader, "dead_letters") == 3
    assert await gateway.cursor() == 2
    await gateway.store(batch_of(5.0))
    assert await values_in(reader) == [1.0, 2.0, 4.0, 5.0]


async def test_a_backend_killed_in_commit_has_stored_nothing(gateway: Gateway, reader: Reader) -> None:
    """The server ends while it commits: StorageUnavailable, and the next attempt stores all of it."""
    await gateway.store(batch_of(1.0))
    await reader.execute(_SLOW_COMMIT)
    storing = asyncio.create_task(gateway.store(batch_of(2.0), [placed(0, 1, "r")]))
    await until(lambda: reader.fetchval(_KILL_COMMIT))
    with pytest.raises(StorageUnavailable):
        await storing
    assert (await values_in(reader), await gateway.cursor()) == ([1.0], 1)
    await reader.execute("DROP TRIGGER slow ON request_ids")
    await gateway.store(batch_of(2.0), [placed(0, 1, "r")])
    assert (await values_in(reader), await gateway.cursor()) == ([1.0, 2.0], 2)


@pytest.mark.parametrize(
    ("statement", "stands_at"),
    [("UPDATE ingestor_journals SET position = 1", 1), ("DELETE FROM ingestor_journals", NOTHING)],
    ids=["restored from a backup", "no cursor"],
)
async def test_a_cursor_that_is_elsewhere_is_told(
    gateway: Gateway, reader: Reader, statement: str, stands_at: int
) -> None:
    """The database is of an earlier moment: nothing is stored that would leave a gap; where it stands is told, and
    from there on it goes on."""
    for value in (1.0, 2.0, 3.0):
        await gateway.store(batch_of(value))
    await reader.execute(f"TRUNCATE metrics; {statement}")
    for _ in range(2):  # at first it is believed to stand at 3, then it is looked for
        with pytest.raises(CursorElsewhere) as told:
            await gateway.store(batch_of(4.0))
        assert told.value.position == stands_at
    assert await values_in(reader) == []
    gateway.position = told.value.position
    await gateway.store(batch_of(5.0))
    assert (await values_in(reader), await gateway.cursor()) == ([5.0], stands_at + 1)


async def test_two_processes_with_one_journal_store_a_delivery_once(
    database: Database, reader: Reader
) -> None:
    """Both are told that it is stored (a copied DATA_DIR is forbidden, but must not store rows twice)."""
    journal = uuid4()
    gateways = [Gateway(database, journal) for _ in range(2)]
    batch = batch_of(*range(1000))
    outcomes = await asyncio.gather(*(each.store(batch, [placed(0, 1000, "r")]) for each in gateways))
    assert outcomes == [Outcome([], [], [])] * 2
    assert await count_in(reader, "metrics") == 1000
    assert await gateways[0].cursor() == 1


async def test_another_database_behind_the_address_gets_nothing(
    database_url: str, postgres: str, gateway: Gateway
) -> None:
    """It is no database of an earlier moment, but another one: an operator has to say which is right. When that one
    is back it goes on."""
    await gateway.store(batch_of(1.0))
    name = urlsplit(database_url).path[1:]
    async with fresh_database(postgres) as other_url:
        async with opened(other_url):
            pass
        other = urlsplit(other_url).path[1:]
        await _exchange(postgres, name, other)
        for _ in range(2):
            with pytest.raises((StorageUnavailable, SchemaProblem)) as told:
                await gateway.store(batch_of(2.0))
        assert isinstance(told.value, SchemaProblem)
        assert "DATABASE_URL leads to another database than before" in str(told.value)
        connection = await asyncpg.connect(database_url)
        assert await count_in(connection, "metrics") == await count_in(connection, "ingestor_journals") == 0
        await connection.close()
        await _exchange(postgres, name, other)
        await gateway.store(batch_of(2.0))
        assert await gateway.cursor() == 2


async def _exchange(server: str, one: str, other: str) -> None:
    connection = await asyncpg.connect(server)
    for name in (one, other):
        ended = await connection.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
        )
        assert all(found[0] for found in ended)
    for old, new in ((one, "exchanged"), (other, one), ("exchanged", other)):
        await connection.execute(f"ALTER DATABASE {old} RENAME TO {new}")
    await connection.close()


async def test_a_cursor_begins_once_and_may_be_forgotten(database: Database) -> None:
    """Beginning at a position does not move a cursor that is there; one that is forgotten is unknown."""
    journal = uuid4()
    assert await database.cursor(journal) is None
    await database.begin_cursor(journal, 7, durable=True)
    await database.begin_cursor(journal, 3, durable=True)
    assert await database.cursor(journal) == 7
    await Gateway(database, journal, position=7).store(batch_of(1.0))
    assert await database.cursor(journal) == 8
    await database.forget_cursor(journal)
    assert await database.cursor(journal) is None


async def test_a_journal_that_comes_back_goes_on_behind_what_another_database_has(
    database: Database, reader: Reader
) -> None:
    """Adopting moves a cursor that was left behind, never back; one that is there for others is not touched."""
    journal, other = uuid4(), uuid4()
    await database.begin_cursor(other, 2, durable=True)
    assert await database.adopt_cursor(journal, 5, durable=True) == 5
    assert await database.adopt_cursor(journal, 9, durable=True) == 9
    assert await database.adopt_cursor(journal, 7, durable=True) == 9
    assert [await database.cursor(each) for each in (journal, other)] == [9, 2]
    gateway = Gateway(database, journal, position=9)
    await gateway.store(batch_of(1.0))
    assert (await gateway.cursor(), await values_in(reader)) == (10, [1.0])


async def test_only_cursors_that_nobody_uses_are_purged(
    database: Database, database_url: str, reader: Reader
) -> None:
    """Not a disk journal's, however old; not one that moved within a day; not an idle one of this process."""
    left, durable, recent, mine = (uuid4() for _ in range(4))
    async with opened(database_url) as gone:
        for journal in (left, recent):
            await gone.begin_cursor(journal, 1, durable=False)
    await database.begin_cursor(durable, 1, durable=True)
    await database.begin_cursor(mine, 1, durable=False)
    await reader.execute(
        "UPDATE ingestor_journals SET updated_at = now() - interval '25 hours' WHERE journal <> $1", recent
    )
    assert await database.purge(60) == 1
    assert [await database.cursor(each) for each in (left, durable, recent, mine)] == [None, 1, 1, 1]


async def test_a_delivery_of_many_positions_moves_the_cursor_over_all_of_them(gateway: Gateway) -> None:
    """Its entries were joined: the cursor stands behind the last one."""
    await gateway.repository.bulk_insert_metrics(delivery_of(batch_of(1.0), after=0, position=500))
    assert await gateway.cursor() == 500
