"""Opens a database: a pool of connections that commit durably, its schema up to date, and what it is.

Failures here are an operator's to mend, so they become one line that says what to do.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import asyncpg

from ingestor.errors import DatabaseProblem, StorageUnavailable
from ingestor.model import RequestKey, StoredRequest
from ingestor.storage.column_store import Choice, ColumnStore, set_up, usable
from ingestor.storage.copy import Encoder, NativeEncoder, ReferenceEncoder, native_available
from ingestor.storage.cursors import Cursors
from ingestor.storage.faults import FAILURES, classify, describe, storage_errors
from ingestor.storage.migrate import Migration, migrate, pending
from ingestor.storage.partitions import WeeklyPartitions
from ingestor.storage.reading import DatabaseReader, ReadLimits
from ingestor.storage.repository import MetricRepository, NoPartitions
from ingestor.storage.request_ids import purge, stored_requests
from ingestor.storage.rights import missing
from ingestor.storage.transactions import AnyConnection, Pool, TransactionManager, leave_as_it_is
from ingestor.telemetry import Telemetry

POSTGRESQL_MIN = 14

TableKind = Literal["hypertable", "partitioned", "ordinary", "absent"]

_CONNECT_TIMEOUT_S = 10.0
_POOL_SIZE_MAX = 4
_CONNECT: dict[str, Any] = {
    "timeout": _CONNECT_TIMEOUT_S,
    # What is acknowledged as committed must be on the server's disk, whatever its default says.
    "server_settings": {"synchronous_commit": "on", "TimeZone": "UTC", "application_name": "ingestor"},
}
# What is still read then is read for nobody.
_READER_CLOSE_S = 1.0
# Those with which we can't go on: no point in naming SQLSTATEs beyond what an operator can act on.
_REMEDIES = {
    "28P01": "check the password in DATABASE_URL",
    "28000": "check the user in DATABASE_URL and the server's pg_hba.conf",
    "3D000": "create the database, or name another in DATABASE_URL",
    "42501": "let the role own the schema, or migrate once as a role that may: ingestor migrate",
    "53300": "raise the server's max_connections, or stop other clients",
    "57P03": "try again when the server has started",
}
_IDENTITY = "SELECT id FROM ingestor_database"
_SUMMARIZE = "SELECT ingestor_summarize_metrics()"
_TIMESCALEDB_SCHEMA = """
SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
  WHERE e.extname = 'timescaledb'
"""
_LOOKED_AT = ("ingestor_migrations", "ingestor_database", "dead_letters")
REQUEST_ID_WINDOW_S = 86_400.0
_PURGED_MAX, _PURGES_MAX = 5_000, 1_000
_FACTS = """
SELECT current_setting('server_version') AS postgresql,
       current_setting('server_version_num')::int / 10000 AS major,
       current_database() AS database,
       current_user AS role,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb,
       (SELECT relkind::text FROM pg_class WHERE oid = to_regclass('metrics')) AS relkind,
       inet_server_addr() IS NOT NULL AS by_network,
       (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls
"""
# Hosts with numeric ports: anything else may be a part of a password.
_HOSTS = re.compile(r"(?:(?:\[[^\[\]]+\]|[^:@,\[\]]*)(?::[0-9]+)?(?:,|$))*")
_NAMES_FILES = re.compile(r"[?&]ssl(rootcert|cert|key|crl)=")
_READ_ONLY = (
    "it is read-only: a standby (name the primary in DATABASE_URL), or default_transaction_read_only is on"
)
_MISREAD = (
    "its address, or a parameter in it (sslmode, sslrootcert ...), is wrong (check DATABASE_URL and PG*)"
)
_UNREADABLE = "an address that can't be read"
# A trial of migrations gives way to whoever uses the tables.
_TRIAL = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '20s'"
_IS_HYPERTABLE = """
SELECT EXISTS (
  SELECT FROM timescaledb_information.hypertables AS h
    JOIN pg_class AS c ON c.relname = h.hypertable_name
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = h.hypertable_schema
    WHERE c.oid = to_regclass('metrics'))
"""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a server is: its versions (`timescaledb` None without the extension), how its table `metrics` is kept,
    and how our connections to it are encrypted (None where they leave no machine)."""

    postgresql: str
    major: int
    timescaledb: str | None
    database: str
    role: str
    table: TableKind
    encryption: str | None = None

    def __str__(self) -> str:
        timescaledb = f" with TimescaleDB {self.timescaledb}" if self.timescaledb else ""
        encryption = f", {self.encryption}" if self.encryption else ""
        return f"PostgreSQL {self.postgresql}{timescaledb}, database {self.database}, role {self.role}{encryption}"


class Database:
    """An open database. `identity` says which one, whatever its address; a copy or a restored backup has the same.
    `close` it in the end."""

    def __init__(
        self,
        pool: Pool,
        facts: DatabaseFacts,
        identity: UUID,
        applied: list[Migration],
        column_store: ColumnStore | None,
    ) -> None:
        self.facts = facts
        self.identity = identity
        self.applied = applied
        self.column_store = column_store
        self._pool = pool
        self.transactions = TransactionManager(pool)
        self._reader: DatabaseReader | None = None
        self._cursors = Cursors(self.transactions, identity)

    def repository(
        self, encoder: Encoder | None, journal: UUID, *, request_id_window_s: float = REQUEST_ID_WINDOW_S
    ) -> MetricRepository:
        """The repository for this journal's deliveries that fits this database's table; it encodes by pgpq where
        that is, unless told."""
        partitioned = self.facts.table == "partitioned"
        return MetricRepository(
            self.transactions,
            WeeklyPartitions(self.transactions) if partitioned else NoPartitions(),
            encoder or (NativeEncoder() if native_available() else ReferenceEncoder()),
            journal,
            self._cursors,
            request_id_window_s=request_id_window_s,
            column_store=self.column_store,
            # What the column store packs, or the partitions' summaries find.
            by_series=partitioned or self.column_store is not None,
        )

    async def cursor(self, journal: UUID) -> int | None:
        """The position up to which this journal is committed here; None when this database has not heard of it."""
        with storage_errors():
            return await self._cursors.position(journal)

    async def begin_cursor(self, journal: UUID, position: int, *, durable: bool) -> None:
        """From now on this process commits this journal here, from `position` on unless its cursor is there
        already. The cursor of one that is not `durable` is purged when nobody uses it any more."""
        with storage_errors():
            await self._cursors.begin(journal, position, durable=durable)

    async def adopt_cursor(self, journal: UUID, position: int, *, durable: bool) -> int:
        """The same for a journal of which another database has all up to `position`: its cursor here is moved on to
        there, if it stands before that. Returns where it stands now."""
        with storage_errors():
            return await self._cursors.adopt(journal, position, durable=durable)

    async def forget_cursor(self, journal: UUID) -> None:
        """The journal has come to its end, and nothing of it will be asked for again."""
        with storage_errors():
            await self._cursors.forget(journal)

    async def stored_requests(
        self, keys: Sequence[RequestKey], window_s: float
    ) -> dict[RequestKey, StoredRequest]:
        """Those of these requests that were committed within the last `window_s` seconds."""
        with storage_errors():
            return await stored_requests(self.transactions, keys, window_s)

    async def summarize(self) -> None:
        """Lets queries of one series pass over what was stored lately of others. Call it now and then."""
        if self.facts.table == "partitioned":
            with storage_errors():
                await self.transactions.execute(_SUMMARIZE)

    async def purge(self, window_s: float) -> int:
        """Deletes request ids that are older, and cursors that nobody uses any more: some thousands at a time, each
        in a transaction of its own. Returns how many; call it now and then."""
        purged = 0
        with storage_errors():
            for _ in range(_PURGES_MAX):
                some = await purge(self.transactions, window_s, _PURGED_MAX)
                purged += some
                if some < _PURGED_MAX:
                    break
            return purged + await self._cursors.purge(_PURGED_MAX)

    async def open_reader(self, url: str, limits: ReadLimits) -> DatabaseReader:
        """A reader with connections of its own, which end with this database's. Raises StorageError."""
        schema = None
        if self.facts.timescaledb is not None:
            with storage_errors():
                schema = str(await self.transactions.execute(_TIMESCALEDB_SCHEMA))
        self._reader = await DatabaseReader.open(url, limits, timescaledb_schema=schema)
        return self._reader

    def move(self, url: str) -> None:
        """The same database is at another address from now on: new connections go there."""
        self._pool.set_connect_args(url, **_CONNECT)
        if self._reader is not None:
            self._reader.move(url)

    async def problem(self, timeout_s: float) -> str | None:
        """Why the database can't be used at this moment; None when it answers within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.transactions.execute("SELECT 1")
        except TimeoutError:
            return f"the database did not answer within {timeout_s:g} s"
        except FAILURES as error:
            return describe(error)
        return None

    async def close(self, timeout_s: float) -> None:
        """Closes the connections, those that are still busy by force after `timeout_s` seconds."""
        if self._reader is not None:
            await self._reader.close(min(timeout_s, _READER_CLOSE_S))
        try:
            await asyncio.wait_for(self._pool.close(), timeout_s)
        except TimeoutError:
            self._pool.terminate()


async def open_database(
    url: str, *, column_store: Choice = "off", telemetry: Telemetry | None = None
) -> Database:
    """Connects, migrates, sets up the column store if it is chosen, and looks. Raises DatabaseProblem with one line
    that says what to do."""
    pool = await _pool(url)
    try:
        with _explained(url):
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
    except BaseException:  # cancelled, too: no connection may stay behind; it is raised again
        pool.terminate()
        raise


async def open_as_it_is(url: str, *, to_write: bool) -> Database:
    """Connects to a database that has this release's schema, and changes nothing. Without `to_write` a standby will
    do, and a role that may only read. Raises DatabaseProblem with one line that says what to do."""
    pool = await _pool(url)
    try:
        with _explained(url):
            async with pool.acquire() as connection:
                found = await facts(connection)
                _fit(found)
                if to_write:
                    await _check_writable(connection, url)
                identity = await _identity_if_migrated(connection, url, found.role)
                if to_write:
                    await _may_write(connection, found)
            return Database(pool, found, identity, [], None)
    except BaseException:  # cancelled, too: no connection may stay behind; it is raised again
        pool.terminate()
        raise


async def _pool(url: str) -> Pool:
    with _explained(url):
        # None is kept open for its own sake: a worker that retries is all the reconnecting that we need.
        return await asyncpg.create_pool(
            url, min_size=0, max_size=_POOL_SIZE_MAX, reset=leave_as_it_is, **_CONNECT
        )


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
    with _explained(url):
        connection = await asyncpg.connect(url, **_CONNECT)
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


async def facts(connection: AnyConnection) -> DatabaseFacts:
    """Asks the server what it is. Raises what asyncpg raises."""
    row = await connection.fetchrow(_FACTS)
    assert row is not None
    kinds: dict[str | None, TableKind] = {None: "absent", "p": "partitioned"}
    kind = kinds.get(row["relkind"], "ordinary")
    if row["timescaledb"] and kind == "ordinary" and await connection.fetchval(_IS_HYPERTABLE):
        kind = "hypertable"
    encryption = row["tls"] or ("not encrypted" if row["by_network"] else None)
    return DatabaseFacts(
        row["postgresql"], row["major"], row["timescaledb"], row["database"], row["role"], kind, encryption
    )


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


def redacted(url: str) -> str:
    """The address as it may be shown: without user and password, and of the parameters only host and port."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _UNREADABLE
    login, _, hosts = parts.netloc.rpartition("@")
    plain = re.match(r"postgres(ql)?:/", url, re.IGNORECASE) is not None
    if not plain or "@" in f"{login}{parts.path}{parts.query}{parts.fragment}" or not _HOSTS.fullmatch(hosts):
        return _UNREADABLE
    if not hosts:
        query = parse_qs(parts.query)
        port = "".join(f":{port}" for port in query.get("port", []))
        hosts = query["host"][-1] + port if "host" in query else "the default socket"
    return f"{unquote(hosts)}{parts.path}"


def _look_after(url: str, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError | PermissionError) and _NAMES_FILES.search(url):
        return "check the files that DATABASE_URL names: sslrootcert, sslcert, sslkey"
    return "check DATABASE_URL, and that the server runs"


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turns what asyncpg raises into a DatabaseProblem that names the server and the remedy."""
    try:
        yield
    except (*FAILURES, ValueError) as error:
        if isinstance(error, ssl.SSLCertVerificationError):  # a ValueError, too
            msg = (
                f"the database at {redacted(url)} can't be used: its certificate is not accepted:"
                f" {error.verify_message.rstrip('.')} (check sslrootcert in DATABASE_URL, and the host's name)"
            )
            raise DatabaseProblem(msg) from None
        if isinstance(error, ValueError):
            # Its text may quote what was taken for a port or a host, which may be a password.
            msg = f"the database at {redacted(url)} can't be used: {_MISREAD}"
            raise DatabaseProblem(msg) from None
        sqlstate = getattr(error, "sqlstate", None)
        hint = getattr(error, "hint", None) or _REMEDIES.get(sqlstate or "")
        remedy = hint or (_look_after(url, error) if sqlstate is None else None)
        text = f"the database at {redacted(url)} can't be used: {describe(error)}"
        passing = isinstance(classify(error), StorageUnavailable)
        raise DatabaseProblem(f"{text} ({remedy})" if remedy else text, passing=passing) from error
