"""What becomes of statements that nobody waits for any more, and what is heard of them."""

from __future__ import annotations

import asyncio
import gc

import asyncpg
import pytest
from loguru import logger

from ingestor.storage.database import Database
from ingestor.storage.transactions import told_by_nobody
from tests.storage.deliveries import Reader, until


@pytest.mark.parametrize(
    ("error", "told"),
    [(asyncpg.ConnectionDoesNotExistError("connection was closed"), False), (ValueError("a mistake"), True)],
)
async def test_a_statement_that_was_given_up_is_no_error(error: Exception, *, told: bool) -> None:
    """Its connection is lost later, and whoever gave it up has said so. What else nobody looks at is told, without
    the values that are in it."""
    lines: list[str] = []
    sink = logger.add(lines.append, level="ERROR", format="{message}", backtrace=False, diagnose=False)
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(told_by_nobody)
    try:
        future = loop.create_future()
        future.set_exception(error)
        del future
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
        logger.remove(sink)
    assert any("never retrieved" in line for line in lines) is told
    assert not any("a mistake" in line.splitlines()[0] for line in lines)


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_who_is_told_to_end_in_a_transaction_ends(database: Database, reader: Reader, how: str) -> None:
    """It is no failure of the database, after which one would go on. The server undoes what was begun, and nobody
    else uses the connection."""
    loop, patience = asyncio.get_running_loop(), asyncio.timeout(None)

    async def write() -> None:
        async with patience, database.transactions.transaction() as connection:
            await connection.execute("CREATE TABLE begun (); LOCK TABLE metrics")

    await reader.execute("BEGIN; LOCK TABLE metrics")
    writing = asyncio.create_task(write())
    await until(lambda: reader.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    if how == "cancelled":
        writing.cancel()
    else:
        patience.reschedule(loop.time())
    await asyncio.wait([writing], timeout=5)
    if how == "cancelled":
        assert writing.cancelled()
    else:
        assert isinstance(writing.exception(), TimeoutError)
    await reader.execute("ROLLBACK")
    begun = "SELECT count(*) FROM pg_class WHERE relname = 'begun'"
    await until(
        lambda: reader.fetchval("SELECT count(*) = 0 FROM pg_locks WHERE relation = 'metrics'::regclass")
    )
    assert await database.transactions.execute(begun) == 0
