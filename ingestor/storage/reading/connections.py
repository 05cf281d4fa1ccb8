"""Connections that only read, few of them and each for a bounded time: whoever asks can't take the database away
from those who store.

A question whose caller is gone is taken back, so that the server does not go on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from loguru import logger

from ingestor.errors import Overloaded, SchemaProblem, TooSlow, Unavailable
from ingestor.storage.faults import FAILURES, classify
from ingestor.storage.reading.giving_way import GivingWay
from ingestor.storage.transactions import Connection, Pool, leave_as_it_is

ResultT = TypeVar("ResultT")
Busy = Callable[[], bool]

_RETRY_AFTER_S = 1.0
# How much longer than the server itself we wait for it to end a statement, or to take one back.
_GRACE_S = 2.0
_WAITING_MAX = 100


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """`connections` at once, each statement for `timeout_s` seconds; who finds none free waits `wait_s`. `share` is
    what questions get of the time while storing is busy."""

    connections: int = 4
    timeout_s: float = 10.0
    wait_s: float = 1.0
    share: float = 1.0


class ReadConnections:
    """Some of them, made as they are needed. `close` them in the end."""

    def __init__(self, pool: Pool, limits: ReadLimits, busy: Busy) -> None:
        self._pool = pool
        self._way = GivingWay(limits.share, busy)
        self._limits = limits
        self._free = asyncio.Semaphore(limits.connections)
        self._waiting = 0
        self._given_back: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str, limits: ReadLimits, busy: Busy) -> ReadConnections:
        """To the database at this address; connects to it when something is asked. `busy` says whether
        storing is."""
        pool = await asyncpg.create_pool(
            url, min_size=0, max_size=limits.connections, reset=leave_as_it_is, **_terms(limits)
        )
        return cls(pool, limits, busy)

    def move(self, url: str) -> None:
        """The same database is at another address from now on."""
        self._pool.set_connect_args(url, **_terms(self._limits))

    async def close(self, timeout_s: float) -> None:
        """Closes them, those that are still busy by force after `timeout_s` seconds."""
        try:
            await asyncio.wait_for(self._pool.close(), timeout_s)
        except TimeoutError:
            self._pool.terminate()

    async def ask(self, question: Callable[[Connection], Awaitable[ResultT]]) -> ResultT:
        """What it returns, on a connection. Raises Overloaded, TooSlow or Unavailable."""
        async with self._turn():
            try:
                async with (
                    asyncio.timeout(self._limits.timeout_s + _GRACE_S),
                    self._connection() as connection,
                ):
                    return await question(connection)
            except (asyncpg.QueryCanceledError, TimeoutError):
                msg = (
                    f"not found within {self._limits.timeout_s:g} s (QUERY_TIMEOUT): ask for a shorter range"
                )
                raise TooSlow(msg) from None
            except FAILURES as error:
                raise _unavailable(error) from error

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """In the order in which they come."""
        if self._waiting >= _WAITING_MAX:
            raise self._way.refusal() or self._busy()
        self._waiting += 1
        try:
            await self._way.clear()
            async with asyncio.timeout(self._limits.wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._waiting -= 1
        try:
            with self._way.counted():
                yield
        finally:
            self._free.release()

    def _busy(self) -> Overloaded:
        msg = f"all {self._limits.connections} connections for queries are busy (QUERY_CONNECTIONS)"
        return Overloaded(msg, _RETRY_AFTER_S)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await self._pool.acquire()
        try:
            yield connection
        finally:
            # A statement that is given up is taken back by the server, for which its caller need not wait.
            task = asyncio.create_task(self._give_back(connection))
            self._given_back.add(task)
            task.add_done_callback(self._given_back.discard)

    async def _give_back(self, connection: Connection) -> None:
        with suppress(*FAILURES):  # then it is closed, and not used again
            await self._pool.release(connection, timeout=_GRACE_S)


def _terms(limits: ReadLimits) -> dict[str, Any]:
    """How to connect."""
    settings = {
        "application_name": "ingestor reading",
        "TimeZone": "UTC",
        "default_transaction_read_only": "on",
        "statement_timeout": str(int(limits.timeout_s * 1_000)),
        # A plan for any range and any prefix is one that reads everything; and compiling takes longer than most
        # of these queries.
        "plan_cache_mode": "force_custom_plan",
        "jit": "off",
        # A question has one process: with helpers, a few long ones would take every core from those who store.
        "max_parallel_workers_per_gather": "0",
    }
    return {"timeout": limits.timeout_s, "server_settings": settings}


def _unavailable(error: BaseException) -> Unavailable:
    problem = classify(error)
    log = logger.error if isinstance(problem, SchemaProblem) else logger.warning
    log("a query failed: {}", problem)
    return Unavailable("the database can't be read at the moment", _RETRY_AFTER_S)
