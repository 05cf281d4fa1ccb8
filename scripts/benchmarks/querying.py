"""How long reading takes over ten million rows, and what it costs those who store meanwhile."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aiohttp
import asyncpg
import numpy as np
import pyarrow as pa

from benchmarks.processes import fresh_database
from ingestor.model import Delivery, MetricBatch
from ingestor.model.batch import SCHEMA
from ingestor.storage.opening import open_database
from ingestor.timestamps import microseconds

SERIES, DAYS = 100, 7
_BATCH_ROWS = 50_000
_ASKED = 20
# Of rows that nobody has looked at since: what autovacuum does within minutes.
_SETTLE = "VACUUM ANALYZE"
# TimescaleDB's own jobs lock the same tables in another order.
_SETTLE_TRIES, _SETTLE_PAUSE_S = 5, 2.0


class _Refused(Exception):
    """Metrics wait, and more was asked than there is time for."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Read:
    """Milliseconds: medians of a day of one series by the minute, and of a page of the catalogue."""

    day_ms: float
    series_ms: float


@asynccontextmanager
async def filled(server: str, rows: int) -> AsyncIterator[str]:
    """A database with so many rows of 100 series over 7 days, as the server would have stored them."""
    async with fresh_database(server) as url:
        database = await open_database(url, column_store="auto")
        journal = uuid4()
        await database.begin_cursor(journal, 0, durable=False)
        repository = database.repository(None, journal)
        for number, batch in enumerate(_batches(rows)):
            await repository.bulk_insert_metrics(
                Delivery(batch, repository.arrange(batch), number, number + 1)
            )
        await database.close(5)
        await settle(url)
        yield url


async def settle(url: str) -> None:
    """As it would be some minutes later. Raises asyncpg.DeadlockDetectedError when it can't be in a few tries."""
    connection = await asyncpg.connect(url)
    try:
        for tries_left in reversed(range(_SETTLE_TRIES)):
            try:
                await connection.execute(_SETTLE)
            except asyncpg.DeadlockDetectedError:
                if not tries_left:
                    raise
                await asyncio.sleep(_SETTLE_PAUSE_S)
            else:
                return
    finally:
        await connection.close()


async def read(port: int) -> Read:
    """Asks for one series after another."""
    days, pages = [], []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        await _ask(http, 0)  # connects
        for number in range(_ASKED):
            days.append(await _ask(http, number))
            pages.append(await _timed(http, "/v1/series?page_size=1000"))
    return Read(statistics.median(days) * 1e3, statistics.median(pages) * 1e3)


@asynccontextmanager
async def asking(port: int, pause_s: float, asked: list[tuple[float, float]]) -> AsyncIterator[None]:
    """Asks both with so long a pause between them, and notes how many seconds both took, each time. Raises what
    ended it."""
    reading = asyncio.create_task(_loop(port, pause_s, asked))
    try:
        yield
        if reading.done():
            await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def _loop(port: int, pause_s: float, asked: list[tuple[float, float]]) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        while True:
            try:
                asked.append((await _ask(http, len(asked)), await _timed(http, "/v1/series?page_size=1000")))
            except _Refused as refusal:
                await asyncio.sleep(refusal.retry_after_s)
            else:
                await asyncio.sleep(pause_s)


async def _ask(http: aiohttp.ClientSession, number: int) -> float:
    end = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=12 + 6 * (number % 10))
    range_ = f"start={_text(end - timedelta(days=1))}&end={_text(end)}&interval=60s"
    return await _timed(http, f"/v1/services/service-{number % 10}/metrics/metric_7:query?{range_}")


async def _timed(http: aiohttp.ClientSession, path: str) -> float:
    began = time.perf_counter()
    async with http.get(path) as response:
        body = await response.read()
        if response.status == 429:
            raise _Refused(float(response.headers["Retry-After"]))
        if response.status != 200:
            msg = f"{path} was answered with {body.decode()}"
            raise RuntimeError(msg)
    return time.perf_counter() - began


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _batches(rows: int) -> Iterator[MetricBatch]:
    """All series in turn, at even times but for some jitter."""
    chance = np.random.default_rng(7)
    span_us = DAYS * 86_400_000_000
    start_us, step_us = microseconds(datetime.now(UTC)) - span_us, span_us * SERIES // rows
    services = pa.array([f"service-{number % 10}" for number in range(SERIES)])
    metrics = pa.array([f"metric_{number // 10}" for number in range(SERIES)])
    for first in range(0, rows, _BATCH_ROWS):
        numbers = np.arange(first, min(rows, first + _BATCH_ROWS))
        series = pa.array(numbers % SERIES)
        times = start_us + numbers // SERIES * step_us + chance.integers(0, step_us, len(numbers))
        columns = [
            pa.array(times).cast(SCHEMA.field("time").type),
            services.take(series),
            metrics.take(series),
            pa.array(chance.random(len(numbers)) * 100),
            pa.array(np.zeros(len(numbers), np.int64)),
        ]
        yield MetricBatch.of_columns(pa.RecordBatch.from_arrays(columns, schema=SCHEMA), {})
