"""Wraps work in a transaction on a pooled connection: commits it when it ends, rolls it back when it fails.

It also sees to it that nobody waits for ever on a connection that has died.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg
from loguru import logger

from ingestor.errors import StorageError, StorageUnavailable

ResultT = TypeVar("ResultT")
# asyncpg's classes are generic in their stubs alone.
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
AnyConnection: TypeAlias = "Connection | asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_ACQUIRE_TIMEOUT_S = 30.0
# How long a server is given for what should take it no time.
_GRACE_S = 2.0


class TransactionManager:
    """Transactions on one pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises what asyncpg raises (see `ingestor.storage.faults`)."""
        async with self._pool.acquire(timeout=_ACQUIRE_TIMEOUT_S) as connection:
            try:
                yield connection
            except (asyncpg.PostgresError, StorageError):
                raise
            except BaseException:  # cancelled, timed out or broken; it is raised again
                _cut(connection)  # or giving it back to the pool would wait for an answer
                raise

    @asynccontextmanager
    async def transaction(self, opening: str = "", closing: str = "") -> AsyncIterator[Connection]:
        """A connection inside BEGIN ... COMMIT; an exception in the block makes that ROLLBACK."""
        async with self.connection() as connection, within(connection, opening, closing):
            yield connection

    async def execute(self, query: str, *arguments: Any) -> Any:
        """One statement in a transaction of its own; returns the first column of its first row."""
        async with self.connection() as connection:
            return await connection.fetchval(query, *arguments)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The same; returns all rows."""
        async with self.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def renew(self) -> None:
        """Uses no present connection again: after a failover they may still lead to the old server."""
        await self._pool.expire_connections()


@asynccontextmanager
async def within(connection: Connection, opening: str = "", closing: str = "") -> AsyncIterator[None]:
    """BEGIN and COMMIT around a block on this connection; an exception in it makes that ROLLBACK.

    `opening` and `closing` are SQL that goes with BEGIN and COMMIT, with its semicolons: on a busy event loop a
    round trip takes milliseconds. Raises what asyncpg raises.
    """
    try:
        await connection.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED; {opening}")
        yield
        if (said := await connection.execute(f"{closing} COMMIT")) != "COMMIT":
            msg = f"the database answered COMMIT with {said}"
            raise StorageUnavailable(msg)
    except asyncpg.PostgresError:
        await _roll_back(connection)
        raise
    except BaseException:  # cancelled, too; it is raised again
        # The server did not answer, or nobody waits for its answer any more: there is no telling what it would say
        # to ROLLBACK. It rolls back by itself when the connection is gone.
        _cut(connection)
        raise


def _cut(connection: Connection) -> None:
    """It is of no more use. That it was cut before must not take the place of the reason: who is cancelled would
    take that for the database's failure, and go on."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _roll_back(connection: Connection) -> None:
    try:
        async with asyncio.timeout(_GRACE_S):
            await connection.execute("ROLLBACK")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        _cut(connection)


def told_by_nobody(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler for the loop that logs what happened without its values, and knows one thing to be
    harmless.

    asyncpg 0.32 forgets the future of a COPY that is given up. When the connection is lost, too, the loop reports
    that nobody looked at its exception; whoever gave the COPY up has told why.
    """
    error = context.get("exception")
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and "task" not in context:
        future = context.get("future")
        if not isinstance(future, asyncio.Task):
            logger.debug("a statement that was given up ended with its connection: {}", error)
            return
    # Not by the loop's own handler, which prints tasks and futures with the values that are in them.
    logger.opt(exception=error).error("the event loop tells: {}", context.get("message"))


async def leave_as_it_is(connection: object) -> None:
    """For asyncpg's pool, in place of its RESET ALL when a connection is given back: what runs here sets nothing
    beyond its transaction, and the round trip would make each batch wait."""


async def until_lost(connection: Connection, work: Awaitable[ResultT]) -> ResultT:
    """Awaits `work` on this connection, but no longer than the connection lives.

    asyncpg 0.32 leaves a COPY waiting for ever, its timeout included, when the server dies while more than
    half a megabyte is unsent; only the termination listener hears of it. Raises StorageUnavailable then.
    """
    task: asyncio.Future[Any] = asyncio.ensure_future(work)
    lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def connection_lost(_: object) -> None:
        if not lost.done():
            lost.set_result(None)

    connection.add_termination_listener(connection_lost)
    try:
        await asyncio.wait([task, lost], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            result: ResultT = task.result()
            return result
        msg = "the connection to the database was lost"
        raise StorageUnavailable(msg)
    finally:
        if not task.done():
            # Cancelling asks the server to stop, which a server that does not answer won't do.
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE_S)
        connection.remove_termination_listener(connection_lost)
