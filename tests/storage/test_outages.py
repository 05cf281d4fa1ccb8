"""What operators and servers do to a database while rows are stored: who is at fault is said, with what to do, and
nothing is lost."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from ingestor.errors import SchemaProblem, StorageUnavailable
from ingestor.model import MetricBatch, label_set
from ingestor.storage.database import Database
from ingestor.storage.opening import open_database
from tests.storage.deliveries import (
    Gateway,
    Reader,
    batch_of,
    connected,
    count_in,
    opened,
    placed,
    row,
    until,
    values_in,
)

LABELS = label_set({"a": "b"})


class Fault(NamedTuple):
    """What somebody did, how it is mended, and what is told until then."""

    done: str
    mended: str
    sqlstate: str | None
    told: str


FAULTS = {
    "table renamed": Fault(
        "ALTER TABLE metrics RENAME TO away",
        "ALTER TABLE away RENAME TO metrics",
        "42P01",
        '"metrics" does not exist .bring it back under its name',
    ),
    "label sets renamed": Fault(
        "ALTER TABLE label_sets RENAME TO away",
        "ALTER TABLE away RENAME TO label_sets",
        "42P01",
        '"label_sets" does not exist .bring it back',
    ),
    "column dropped": Fault(
        "ALTER TABLE metrics RENAME COLUMN value TO reading",
        "ALTER TABLE metrics RENAME COLUMN reading TO value",
        "42703",
        'column "value" of relation "metrics" does not exist .bring it back under its name',
    ),
    "column of another type": Fault(
        "DROP VIEW labeled_metrics; ALTER TABLE metrics ALTER COLUMN value TYPE integer",
        "ALTER TABLE metrics ALTER COLUMN value TYPE double precision",
        "22P03",
        "incorrect binary data format.*give the column back its type",
    ),
    "column that nobody fills": Fault(
        "TRUNCATE metrics; ALTER TABLE metrics ADD COLUMN region text NOT NULL",
        "ALTER TABLE metrics DROP COLUMN region",
        "23502",
        'null value in column "region".*give the column a DEFAULT',
    ),
    "partition detached": Fault(
        "ALTER TABLE metrics DETACH PARTITION metrics_2026w48",
        "ALTER TABLE metrics ATTACH PARTITION metrics_2026w48"
        " FOR VALUES FROM ('2026-11-23 00:00+00') TO ('2026-11-30 00:00+00')",
        "23514",
        "no partition.*attach it",
    ),
    "cursor's function dropped": Fault(
        "ALTER FUNCTION ingestor_move_cursor RENAME TO away",
        "ALTER FUNCTION away RENAME TO ingestor_move_cursor",
        "42883",
        "ingestor_move_cursor.*bring it back",
    ),
    "trigger that leaves rows out": Fault(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER skip BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION skip()",
        "DROP TRIGGER skip ON metrics",
        None,
        "does a trigger of metrics leave some out",
    ),
    "dead letters refused": Fault(
        "ALTER TABLE metrics ADD CONSTRAINT small CHECK (value < 2);"
        "ALTER TABLE dead_letters ADD CONSTRAINT none CHECK (reason = '')",
        "ALTER TABLE metrics DROP CONSTRAINT small; ALTER TABLE dead_letters DROP CONSTRAINT none",
        "23514",
        "what is stored beside the rows of a batch is refused",
    ),
}


def labeled(value: float) -> MetricBatch:
    """A row with labels."""
    return MetricBatch.of_rows([row(value, label_set_id=LABELS.id)], {LABELS.id: LABELS.document})


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_the_schemas_fault_is_told_and_nothing_becomes_a_dead_letter(
    gateway: Gateway, reader: Reader, fault: Fault
) -> None:
    """SchemaProblem, again and again, in one line that names what is missing and what to do; once it is mended the
    same delivery is stored, once."""
    await gateway.store(batch_of(1.0))
    await reader.execute(fault.done)
    with pytest.raises(SchemaProblem, match=fault.told) as told:
        await gateway.store(labeled(2.0), [placed(0, 1, "r")])
    assert told.value.sqlstate == fault.sqlstate
    assert "\n" not in str(told.value)
    with pytest.raises(SchemaProblem):
        await gateway.store(labeled(2.0), [placed(0, 1, "r")])
    assert await gateway.cursor() == 1
    await reader.execute(fault.mended)
    assert not (await gateway.store(labeled(2.0), [placed(0, 1, "r")])).dead
    assert (await values_in(reader))[-1:] == [2.0]
    assert (await gateway.cursor(), await count_in(reader, "dead_letters")) == (2, 0)


@pytest.mark.parametrize(
    ("table", "right"),
    [
        ("metrics", "INSERT"),
        ("label_sets", "INSERT"),
        ("request_ids", "SELECT, INSERT, UPDATE"),
        ("ingestor_journals", "SELECT, UPDATE"),
        ("dead_letters", "INSERT"),
    ],
)
async def test_a_right_that_was_revoked_is_named(
    database_url: str, reader: Reader, table: str, right: str
) -> None:
    """SchemaProblem with the GRANT that mends it, and that does mend it."""
    async with opened(database_url):
        pass
    role = f"writer_{await reader.fetchval('SELECT current_database()')}"
    await reader.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ingestor_migrations TO {role}")
    url = database_url.replace("user=ingestor", f"user={role}")
    try:
        with pytest.raises(Exception, match="lacks rights to store: GRANT") as lacking:
            await open_database(url)
        await reader.execute(str(lacking.value).partition("lacks rights to store: ")[2])
        async with opened(url) as database:
            gateway = Gateway(database)
            await gateway.store(batch_of(1.0), [placed(0, 1, "a")])
            await reader.execute(
                f"REVOKE {right} ON {table} FROM {role};"
                "ALTER TABLE metrics ADD CONSTRAINT small CHECK (value < 100)"
            )
            batch = MetricBatch.of_rows(
                [row(2.0, label_set_id=LABELS.id), row(200.0)], {LABELS.id: LABELS.document}
            )
            with pytest.raises(SchemaProblem, match=f"GRANT .* ON {table} TO {role}") as told:
                await gateway.store(batch, [placed(0, 2, "b")])
            assert told.value.sqlstate == "42501"
            await reader.execute(str(told.value)[str(told.value).index("GRANT") :])
            assert len((await gateway.store(batch, [placed(0, 2, "b")])).dead) == 1
            assert await values_in(reader) == [1.0, 2.0]
            await database.begin_cursor(gateway.journal, 0, durable=False)
            assert await database.stored_requests([("", "b")], 60)
            assert await database.purge(60) == 0
            await database.forget_cursor(gateway.journal)
    finally:
        await reader.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


SETTINGS = {
    "read-only": ("default_transaction_read_only = on", "25006"),
    "lock timeout": ("lock_timeout = '50ms'", "55P03"),
    "statement timeout": ("statement_timeout = '50ms'", "57014"),
}


@pytest.mark.parametrize(("setting", "sqlstate"), SETTINGS.values(), ids=SETTINGS.keys())
async def test_a_server_that_cannot_now_may_later(
    gateway: Gateway, database_url: str, reader: Reader, setting: str, sqlstate: str
) -> None:
    """StorageUnavailable with the server's SQLSTATE, nothing stored; afterwards the same delivery is, once."""
    await gateway.store(batch_of(1.0))
    await gateway.database.transactions.renew()
    name = await reader.fetchval("SELECT current_database()")
    await reader.execute(f"ALTER DATABASE {name} SET {setting}")
    async with connected(database_url) as holder:
        await holder.execute("SET default_transaction_read_only = off; SET lock_timeout = 0")
        await holder.execute("BEGIN; LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StorageUnavailable) as told:
            await gateway.store(batch_of(2.0), [placed(0, 1, "r")])
    assert told.value.sqlstate == sqlstate
    assert await gateway.cursor() == 1
    await reader.execute(f"ALTER DATABASE {name} RESET {setting.partition(' ')[0]}")
    await gateway.database.transactions.renew()
    await gateway.store(batch_of(2.0), [placed(0, 1, "r")])
    assert await values_in(reader) == [1.0, 2.0]


async def test_a_deadlock_is_the_servers(gateway: Gateway, database_url: str, reader: Reader) -> None:
    """With somebody who locks our tables in the other order; it is rolled back, and stored when tried again."""
    await gateway.store(batch_of(1.0))
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE 'COPY%' AND datname = current_database()"
    )
    async with connected(database_url) as holder:
        await holder.execute("SET deadlock_timeout = '1h'; BEGIN; LOCK TABLE metrics")
        storing = asyncio.create_task(gateway.store(batch_of(2.0), [placed(0, 1, "r")]))
        await until(lambda: reader.fetchval(waits))
        with pytest.raises(StorageUnavailable) as told:
            await asyncio.gather(storing, holder.execute("LOCK TABLE request_ids"))
        assert told.value.sqlstate == "40P01"
        await holder.execute("ROLLBACK")
    assert await values_in(reader) == [1.0]
    await gateway.store(batch_of(2.0), [placed(0, 1, "r")])
    assert (await values_in(reader), await gateway.cursor()) == ([1.0, 2.0], 2)


@pytest.mark.parametrize("before", ["the first", "a later"])
async def test_a_killed_connection_is_the_servers(
    gateway: Gateway, reader: Reader, database: Database, before: str
) -> None:
    """Between two deliveries: the next fails or is stored, and is stored once in the end."""
    if before == "a later":
        await gateway.store(batch_of(0.0))
    else:
        await database.transactions.execute("SELECT 1")
    assert await reader.fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'ingestor'"
    )
    for _ in range(5):
        try:
            await gateway.store(batch_of(1.0))
            break
        except StorageUnavailable:
            continue
    assert (await values_in(reader))[-1:] == [1.0]
    assert await reader.fetchval("SELECT count(*) FROM metrics WHERE value = 1") == 1
