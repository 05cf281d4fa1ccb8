"""Opens a database, and says beforehand whether that would work: the right version, writable, the schema up to date
(or brought there), and a role that may store.

Failures here are an operator's to mend, so they become one line that says what to do. Whoever only looks changes
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from uuid import UUID

import asyncpg

from ingestor.errors import DatabaseProblem
from ingestor.storage.column_store import Choice, set_up, usable
from ingestor.storage.database import Database
from ingestor.storage.explaining import explained, redacted
from ingestor.storage.facts import DatabaseFacts, facts
from ingestor.storage.migrate import Migration, migrate, pending
from ingestor.storage.pool import connect, open_pool
from ingestor.storage.rights import missing
from ingestor.storage.transactions import AnyConnection, Pool
from ingestor.telemetry import Telemetry

POSTGRESQL_MIN = 14

_IDENTITY = "SELECT id FROM ingestor_database"
_LOOKED_AT = ("ingestor_migrations", "ingestor_database", "dead_letters")
_READ_ONLY = (
    "it is read-only: a standby (name the primary in DATABASE_URL), or default_transaction_read_only is on"
)
# So long a server is given to give up a statement.
_GRACE_S = 2.0
# A trial of migrations gives way to whoever uses the tables.
_TRIAL = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '20s'"


async def open_database(
    url: str, *, column_store: Choice = "off", telemetry: Telemetry | None = None
) -> Database:
    """Connects, migrates, sets up the column store if it is chosen, and looks. Raises DatabaseProblem with one line
    that says what to do."""
    pool = await _pool(url)

    async def look() -> Database:
        with explained(url):
            async with pool.acquire() as connection:
                _fit(await facts(connection))
                await _check_writable(connection, url)
            applied = await migrate(pool)
            async with pool.acquire() as connection:
                found = await facts(connection)
                await _may_write(connection, found)
                identity = UUID(str(await connection.fetchval(_IDENTITY)))
            store = None
            if usable(column_store, found.timescaledb, hypertable=found.table == "hypertable"):
                store = await set_up(pool, telemetry or Telemetry())
            return Database(pool, found, identity, applied, store)

    return await _or_none_stays(pool, look())


async def open_as_it_is(url: str, *, to_write: bool) -> Database:
    """Connects to a database that has this release's schema, and changes nothing. Without `to_write` a standby will
    do, and a role that may only read. Raises DatabaseProblem with one line that says what to do."""
    pool = await _pool(url)

    async def look() -> Database:
        with explained(url):
            async with pool.acquire() as connection:
                found = await facts(connection)
                _fit(found)
                if to_write:
                    await _check_writable(connection, url)
                identity = await _identity_if_migrated(connection, url, found.role)
                if to_write:
                    await _may_write(connection, found)
            return Database(pool, found, identity, [], None)

    return await _or_none_stays(pool, look())


async def _or_none_stays(pool: Pool, work: Coroutine[None, None, Database]) -> Database:
    """Awaits `work`; when it fails or is given up, no connection of the pool stays behind."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except BaseException:  # cancelled, too; it is raised again
        # Who is cancelled in a statement has the server give it up, too: a backend that waits for a lock would not
        # notice that we are gone, and hold up those behind it. Whether it answers at all is another matter.
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=_GRACE_S)
        finally:
            pool.terminate()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _pool(url: str) -> Pool:
    with explained(url):
        return await open_pool(url)


async def _identity_if_migrated(connection: AnyConnection, url: str, role: str) -> UUID:
    """Raises DatabaseProblem for a schema that is older or newer, and when the role may not even see that."""
    try:
        todo = await pending(connection)
        if not todo:
            return UUID(str(await connection.fetchval(_IDENTITY)))
    except asyncpg.InsufficientPrivilegeError:
        msg = f"the role {role} lacks rights to look: GRANT SELECT ON {', '.join(_LOOKED_AT)} TO {role}"
        raise DatabaseProblem(msg) from None
    names = ", ".join(f"{migration.version:04} {migration.name}" for migration in todo)
    msg = (
        f"the database at {redacted(url)} does not have this release's schema (it lacks {names}):"
        " check DATABASE_URL, or bring it up to date: ingestor migrate"
    )
    raise DatabaseProblem(msg)


async def inspect(url: str) -> tuple[DatabaseFacts, list[Migration]]:
    """What is there, and which migrations are pending, without changing anything. Raises DatabaseProblem for
    whatever would keep `open_database` from working, or rows from being stored."""
    with explained(url):
        connection = await connect(url)
        try:
            found = await facts(connection)
            _fit(found)
            await _check_writable(connection, url)
            todo = await pending(connection)
            await _try_out(connection, todo)
            return found, todo
        finally:
            connection.terminate()


async def _try_out(connection: AnyConnection, todo: list[Migration]) -> None:
    """Migrates in a transaction that is rolled back, and looks at the rights to what it has made. A table that
    somebody has locked is no problem, only one that can't be tried."""
    trial = connection.transaction()
    await trial.start()
    try:
        await connection.execute(_TRIAL)
        for migration in todo:
            await connection.execute(migration.sql)
        await _may_write(connection, await facts(connection))
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError):
        pass
    finally:
        await trial.rollback()


def _fit(found: DatabaseFacts) -> None:
    if found.major < POSTGRESQL_MIN:
        msg = f"PostgreSQL {POSTGRESQL_MIN} or newer is needed, this is {found.postgresql}"
        raise DatabaseProblem(msg)


async def _check_writable(connection: AnyConnection, url: str) -> None:
    if await connection.fetchval("SHOW transaction_read_only") == "on":
        msg = f"the database at {redacted(url)} can't be used: {_READ_ONLY}"
        raise DatabaseProblem(msg, passing=True)


async def _may_write(connection: AnyConnection, found: DatabaseFacts) -> None:
    """Raises DatabaseProblem when the role lacks a right that storing takes: better now than at the first row."""
    grants = await missing(connection, found.role, partitioned=found.table == "partitioned")
    if grants is not None:
        msg = f"the role {found.role} lacks rights to store: {grants}"
        raise DatabaseProblem(msg)
