"""Metrics a second from the first request until the last row is committed; and the ceiling, raw COPY of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from benchmarks.driving import Target, until_answered
from benchmarks.grpc_client import UnaryConnection
from benchmarks.http_client import HttpConnection
from benchmarks.processes import fresh_database, ingestor
from benchmarks.workload import Workload
from ingestor.model import Delivery, MetricBatch
from ingestor.storage.column_store import DIRECT, usable
from ingestor.storage.copy import NativeEncoder, ReferenceEncoder, native_available
from ingestor.storage.opening import open_database
from ingestor.storage.series import by_series, series_codes

SERVICE = "/analytics.v1.AnalyticsService"
# As many rows at once as a batch has at the most; sorted among themselves for the column store.
_COPY_ROWS = 100_000


@dataclass(frozen=True)
class Case:
    """A workload and how it is sent."""

    name: str
    workload: Workload
    bodies: Callable[[Workload], list[bytes]]
    method: str = "LogMetrics"
    path: str = ""
    connections: int = 4
    calls: int = 4

    def target(self, ports: tuple[int, int], bodies: list[bytes]) -> Target:
        """Its server, by gRPC, or by HTTP if it has a path."""
        if self.path:
            return Target(
                ports[1], lambda heard: HttpConnection(self.path, bodies, heard), self.connections, 1
            )
        path = f"{SERVICE}/{self.method}"
        # Each connection sends its share, so that no row comes twice.
        shares = iter([bodies[number :: self.connections] for number in range(self.connections)])
        return Target(
            ports[0], lambda heard: UnaryConnection(path, next(shares), heard), self.connections, self.calls
        )


def cases(rows: int) -> list[Case]:
    """Those of the table, each with about so many rows."""

    def metrics(size: int) -> Callable[[Workload], list[bytes]]:
        return lambda workload: workload.log_metrics(size)

    def series(workload: Workload) -> list[bytes]:
        return workload.write_series(5_000, 1_000)

    return [
        Case("LogMetrics of 1,000", Workload(rows), metrics(1_000)),
        Case("LogMetrics of 5,000", Workload(rows), metrics(5_000)),
        Case("LogMetrics of 1,000, 4 labels", Workload(rows // 2, labels=4), metrics(1_000)),
        Case("LogMetrics of 1,000, 10,000 series", Workload(rows, series=10_000), metrics(1_000)),
        Case("WriteSeries, 1,000 points a series", Workload(rows), series, "WriteSeries"),
        Case("WriteSeries, 4 labels", Workload(rows, labels=4), series, "WriteSeries"),
        Case(
            "JSON :batch of 1,000",
            Workload(rows // 2),
            lambda workload: workload.json_batch(1_000),
            path="/v1/metrics:batch",
        ),
    ]


async def committed_per_second(server: str, case: Case, bodies: list[bytes], **settings: str) -> float:
    """One run in a fresh database, with these settings. Raises RuntimeError when a request fails or a row is
    missing."""
    async with fresh_database(server) as url, ingestor(url, **settings) as ports:
        began = time.perf_counter()
        await until_answered(case.target(ports, bodies), len(bodies))
        await _stored(url, case.workload.rows)
        return case.workload.rows / (time.perf_counter() - began)


async def raw_copy_per_second(server: str, batches: Sequence[MetricBatch]) -> float:
    """The same rows by asyncpg's binary COPY on one connection, encoded beforehand, into the same table: where that
    is possible, into the column store directly, sorted."""
    encoder = NativeEncoder() if native_available() else ReferenceEncoder()
    async with fresh_database(server) as url:
        database = await open_database(url, column_store="auto")
        repository = database.repository(None, uuid4())
        direct = usable("auto", database.facts.timescaledb, hypertable=database.facts.table == "hypertable")
        prepared = [_sorted(batch) if direct else batch for batch in batches]
        encoded = [b"".join(encoder.encode(batch.columns)) for batch in prepared]
        # Makes the partitions.
        await repository.bulk_insert_metrics(Delivery(batches[0], batches[0], 0, 1))
        await database.close(5)
        connection = await asyncpg.connect(url)
        began = time.perf_counter()
        for stream in encoded:
            await connection.execute(f"BEGIN; {DIRECT if direct else ''}")
            await connection.copy_to_table(
                "metrics", columns=batches[0].columns.schema.names, source=_pieces(stream), format="binary"
            )
            await connection.execute("COMMIT")
        took = time.perf_counter() - began
        await connection.close()
    return sum(batch.rows for batch in batches) / took


def copy_batches(workload: Workload) -> list[MetricBatch]:
    """The workload's rows as raw COPY sends them."""
    return list(workload.batches(_COPY_ROWS))


def _sorted(batch: MetricBatch) -> MetricBatch:
    codes, bound = series_codes(batch.columns)
    return batch.sorted_as(by_series(batch.columns, codes, bound))


async def _pieces(stream: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


async def _stored(url: str, rows: int, patience_s: float = 120.0) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(patience_s):
            while await connection.fetchval("SELECT count(*) FROM metrics") < rows:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
