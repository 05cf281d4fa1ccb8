"""What the tests of the gRPC side share."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from ingestor_api.analytics.v1 import LogMetricRequest, LogMetricsRequest, Metric

from ingestor.settings import load
from ingestor.transport.bounds import DEFAULT, Bounds
from ingestor.transport.grpc import GrpcServer
from ingestor.transport.rpc import Rpc
from ingestor.transport.share import Share
from tests.gateway import Gateway, gateway
from tests.transport.grpc.raw_h2 import LOG_METRIC, RawClient

SERVICE = "/analytics.v1.AnalyticsService"
GOOD = bytes(LogMetricRequest("s", "m", 1.0))


def framed(message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


@asynccontextmanager
async def serving(
    serve: Callable[[bytes], Awaitable[bytes]], bounds: Bounds = DEFAULT
) -> AsyncIterator[RawClient]:
    """A server of one method, without what lies behind it, and a client of it."""

    async with listening([unary_rpc(serve)], bounds) as (_, port), connected(port) as client:
        yield client


def unary_rpc(serve: Callable[[bytes], Awaitable[bytes]]) -> Any:
    """LogMetric, answered by this."""
    return SimpleNamespace(path=LOG_METRIC, serve=serve, streams=False)


@asynccontextmanager
async def listening(
    rpcs: Sequence[Rpc], bounds: Bounds = DEFAULT, **options: Any
) -> AsyncIterator[tuple[GrpcServer, int]]:
    """A server of these, and its port."""
    usual: dict[str, Any] = {"lane": load({}).grpc_lane, "share": Share(bounds)}
    server = GrpcServer(rpcs, message_bytes_max=2**20, **{**usual, **options})
    port = await server.start("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawClient]:
    """A client of the server there."""
    client = RawClient()
    await client.connect(port)
    try:
        yield client
    finally:
        await client.close()


def messages(data: bytes) -> list[bytes]:
    """Those that a stream's data holds, the last of which may be cut."""
    found = []
    while len(data) >= 5:
        end = 5 + int.from_bytes(data[1:5])
        found.append(data[5:end])
        data = data[end:]
    return found


@asynccontextmanager
async def without_room(database_url: str, **flags: Any) -> AsyncIterator[Gateway]:
    """A gateway whose queue is full: calls wait for room, until `give_room`."""
    flags = {"journal": "memory", "queue_capacity": 5, "admission_wait": "30s", "batch_size": 50, **flags}
    async with gateway(database_url, **flags) as full:
        await full.database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        await full.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 0.0)] * 5))
        yield full


async def give_room(full: Gateway) -> None:
    """Lets the database take what waits."""
    await full.database.transactions.execute("ALTER TABLE away RENAME TO metrics")


async def waiting(full: Gateway, calls: int) -> None:
    """Returns when so many calls wait for room."""
    while full.count("ingestor_queue_waiting_requests") < calls:
        await asyncio.sleep(0.01)
