"""Brings a database to the schema that this release needs, by numbered plain-SQL files.

Safe from two processes at once, and from a database that a newer release has already migrated. It never
goes back.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files

import asyncpg
from loguru import logger

from ingestor.errors import DatabaseProblem
from ingestor.storage.transactions import AnyConnection, Connection, Pool

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
# Both halves of a transaction-level advisory lock; the first is this project's number.
_LOCK = "SELECT pg_advisory_xact_lock(4951083, 1)"
_LEDGER = """
CREATE TABLE IF NOT EXISTS ingestor_migrations (
  version int PRIMARY KEY,
  name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `version` from its name's number, `sql` its text."""

    version: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All of them, in order."""
    found = [
        Migration(int(match[1]), match[2], file.read_text("utf-8"))
        for file in files("ingestor.storage").joinpath("migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


async def pending(connection: AnyConnection) -> list[Migration]:
    """Those that this database has not seen. Raises DatabaseProblem if it has seen some unknown to us."""
    known = migrations()
    if await connection.fetchval("SELECT to_regclass('ingestor_migrations') IS NULL"):
        return known
    applied = await _applied(connection)
    if (newest := max(applied, default=0)) > known[-1].version:
        msg = (
            f"the database was migrated by a newer release (to {newest}; this one knows {known[-1].version}):"
            " run that release or a later one"
        )
        raise DatabaseProblem(msg)
    return [migration for migration in known if migration.version not in applied]


async def migrate(pool: Pool) -> list[Migration]:
    """Applies what is pending, each migration in a transaction of its own; returns what this call applied.

    Raises DatabaseProblem and what asyncpg raises.
    """
    applied = []
    async with pool.acquire() as connection, _warnings_logged(connection):
        for migration in await pending(connection):
            async with connection.transaction():
                await connection.execute(_LOCK)
                await connection.execute(_LEDGER)
                # Again, now that nobody else migrates: another process may have been faster. (Not by `pending`:
                # to_regclass may answer from what this session cached before it waited for the lock.)
                if migration.version not in await _applied(connection):
                    await connection.execute(migration.sql)
                    await connection.execute(
                        "INSERT INTO ingestor_migrations (version, name) VALUES ($1, $2)",
                        migration.version,
                        migration.name,
                    )
                    applied.append(migration)
    return applied


@asynccontextmanager
async def _warnings_logged(connection: Connection) -> AsyncIterator[None]:
    """What a migration warns of (no right to create an extension, say) reaches the log."""

    def log(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity == "WARNING":
            logger.warning("the database warns: {}", message.message)

    connection.add_log_listener(log)
    try:
        yield
    finally:
        connection.remove_log_listener(log)


async def _applied(connection: AnyConnection) -> set[int]:
    return {row["version"] for row in await connection.fetch("SELECT version FROM ingestor_migrations")}
