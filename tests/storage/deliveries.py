"""What the tests of storage share: rows, deliveries of a journal, and a gateway that stores them.

It decides nothing that a test is about: a delivery that was not stored is the next one again, as the worker has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TypeAlias
from uuid import UUID, uuid4

import asyncpg

from ingestor.model import DeadRow, Delivery, MetricBatch, Outcome, Placed, Request, Row
from ingestor.model.delivery import NOTHING
from ingestor.storage.database import REQUEST_ID_WINDOW_S, Database
from ingestor.storage.opening import open_database
from ingestor.timestamps import microseconds

Reader: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


def row(value: float, service: str = "s", name: str = "m", label_set_id: int = 0) -> Row:
    """A row of that moment."""
    return Row(microseconds(NOW), service, name, value, label_set_id)


def batch_of(*values: float) -> MetricBatch:
    """Rows that differ by their values."""
    return MetricBatch.of_rows([row(value) for value in values], {})


def placed(first: int, rows: int, id_: str, *, asks: str = "", caller: str = "") -> Placed:
    """A request with that id and those rows of a batch; two that ask for the same have one fingerprint."""
    return Placed(first, rows, Request(caller, id_, blake2b(asks.encode(), digest_size=16).digest(), rows))


def delivery_of(
    batch: MetricBatch, requests: Sequence[Placed] = (), *, after: int = NOTHING, position: int = 1
) -> Delivery:
    """A delivery that is arranged as its rows came."""
    return Delivery(batch, batch, after, position, requests)


class Gateway:
    """A journal, whose deliveries go into a database one after another."""

    def __init__(
        self,
        database: Database,
        journal: UUID | None = None,
        *,
        position: int = NOTHING,
        request_id_window_s: float = REQUEST_ID_WINDOW_S,
    ) -> None:
        self.database = database
        self.journal = journal or uuid4()
        self.position = position
        self.repository = database.repository(None, self.journal, request_id_window_s=request_id_window_s)

    async def store(self, batch: MetricBatch, requests: Sequence[Placed] = ()) -> Outcome:
        """Stores the next delivery, which is the next one again when that fails."""
        position = self.position + 1
        arranged = self.repository.arrange(batch)
        outcome = await self.repository.bulk_insert_metrics(
            Delivery(batch, arranged, self.position, position, requests)
        )
        self.position = position
        return outcome

    async def cursor(self) -> int | None:
        """Where the database says that it stands."""
        return await self.database.cursor(self.journal)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """The database as the service opens it."""
    database = await open_database(url)
    try:
        yield database
    finally:
        await database.close(timeout_s=5)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Reader]:
    """A connection to it, closed whatever state it is in."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


async def values_in(reader: Reader) -> list[float]:
    """The values of all rows."""
    return [found["value"] for found in await reader.fetch("SELECT value FROM metrics ORDER BY value")]


async def count_in(reader: Reader, table: str) -> int:
    """How many rows that table has."""
    count: int = await reader.fetchval(f"SELECT count(*) FROM {table}")
    return count


def states(dead: Sequence[DeadRow]) -> list[tuple[int, str | None]]:
    """Which rows, and by which SQLSTATEs."""
    return [(each.row, each.sqlstate) for each in dead]


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Asks again and again, for ten seconds at most."""
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)
