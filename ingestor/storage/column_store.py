"""TimescaleDB's column store, written directly: where it is used, and what the server says.

It never promises the server that batches don't overlap (`..._client_sorted`): with such a promise broken, queries
that trust in the order return rows out of order. Without it the server marks the chunk as unordered and sorts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Literal

import asyncpg
from loguru import logger

from ingestor.errors import DatabaseProblem
from ingestor.storage.transactions import Connection, Pool
from ingestor.telemetry import Telemetry

Choice = Literal["auto", "on", "off"]

# 2.21 brought direct compression by COPY; 2.29 has compaction policies, and the bugs found until then mended.
_VERSION_ON, _VERSION_AUTO = (2, 21), (2, 29)

DIRECT = (
    "SET LOCAL timescaledb.enable_direct_compress_copy = on;"
    " SET LOCAL timescaledb.enable_direct_compress_copy_sort_batches = off;"
)
"""Opens a transaction whose COPY writes into the column store, unless the server says that it can't."""

INDIRECT = "SET LOCAL timescaledb.enable_direct_compress_copy = off"
"""Makes the rest of such a transaction write rows: for what is not by series after all."""

# How the server says that it writes rows after all: a unique or exclusion constraint, a trigger.
_FALLBACK = "disabling direct compress"


class ColumnStore:
    """Hears what becomes of batches that are written so."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._told = False

    @asynccontextmanager
    async def watching(self, connection: Connection) -> AsyncIterator[None]:
        """Hears whether a `DIRECT` transaction's COPY was written as rows after all; tells it once, counts it."""
        fell_back = False

        def hear(_: object, message: asyncpg.PostgresLogMessage) -> None:
            nonlocal fell_back
            fell_back = fell_back or message.message.startswith(_FALLBACK)
            if fell_back and not self._told:
                self._told = True
                logger.warning("batches go into the row store, because the server is {}", message.message)

        connection.add_log_listener(hear)
        try:
            yield
        finally:
            connection.remove_log_listener(hear)
        (self._telemetry.column_store_fallbacks if fell_back else self._telemetry.column_store_batches).inc()


def usable(choice: Choice, timescaledb: str | None, *, hypertable: bool) -> bool:
    """Whether batches are written to the column store directly. Raises DatabaseProblem when they should be and
    can't."""
    version = _version(timescaledb) if timescaledb and hypertable else (0, 0)
    if choice == "on" and version < _VERSION_ON:
        have = f"TimescaleDB {timescaledb}" if timescaledb else "no TimescaleDB"
        msg = f"COLUMN_STORE=on needs a hypertable on TimescaleDB 2.21 or newer, this database has {have}"
        raise DatabaseProblem(msg)
    return choice == "on" or (choice == "auto" and version >= _VERSION_AUTO)


async def set_up(pool: Pool, telemetry: Telemetry) -> ColumnStore | None:
    """Applies the settings and policies; None, with a warning, when this role may not and they are not there."""
    sql = files("ingestor.storage").joinpath("policies", "column_store.sql").read_text("utf-8")
    async with pool.acquire() as connection:
        try:
            await connection.execute(sql)
        except asyncpg.InsufficientPrivilegeError as error:
            logger.warning(
                "the column store is not used: {} (let the owner of metrics run serve once)", error
            )
            return None
    return ColumnStore(telemetry)


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()))
