"""A running gateway for tests, and both ways to call it."""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from grpclib.client import Channel
from ingestor_api.analytics.v1 import AnalyticsServiceStub

from ingestor.app import App
from ingestor.settings import Settings, load
from ingestor.storage.database import Database

FIRST_DESIGN: dict[str, Any] = {
    "batch_size": 5,
    "flush_interval": "1s",
    "queue_capacity": 10,
    "admission_wait": "0",
    "journal": "memory",
}
"""The parameters of the first design."""


@dataclass
class Gateway:
    """A started app with a client for each protocol. `stopped` tells how many metrics a stop lost."""

    app: App
    host: str
    grpc_port: int
    http_port: int
    stub: AnalyticsServiceStub
    http: aiohttp.ClientSession

    @property
    def database(self) -> Database:
        database = self.app.database
        assert database is not None
        return database

    @property
    def grpc_address(self) -> str:
        return f"{self.host}:{self.grpc_port}"

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON of a POST; a str or bytes body is sent as it is."""
        data = (
            body
            if isinstance(body, bytes)
            else body.encode()
            if isinstance(body, str)
            else json.dumps(body).encode()
        )
        async with self.http.post(path, data=data) as response:
            return response.status, await response.json()

    async def rows(self) -> list[tuple[Any, ...]]:
        """What is stored, by value."""
        async with self.database.transactions.transaction() as connection:
            found = await connection.fetch(
                "SELECT time, service_name, metric_name, value, labels::text FROM labeled_metrics ORDER BY value"
            )
        return [tuple(row) for row in found]

    def count(self, name: str) -> float:
        """A counter or gauge of this gateway."""
        found = self.app.telemetry.registry.get_sample_value(name)
        assert found is not None
        return found


@asynccontextmanager
async def gateway(
    database_url: str, *, client: ssl.SSLContext | None = None, **flags: Any
) -> AsyncIterator[Gateway]:
    """Serves on free ports, with a DATA_DIR of its own unless told; stops in order at the end. Where it speaks TLS,
    the clients need `client`."""
    with tempfile.TemporaryDirectory(prefix="ingestor-test-") as folder:
        usual = {"grpc_port": 0, "http_port": 0, "flush_interval": "20ms", "data_dir": folder}
        settings = load({"database_url": database_url, **usual, **flags})
        async with _serving(settings, client) as served:
            yield served


@asynccontextmanager
async def _serving(settings: Settings, client: ssl.SSLContext | None) -> AsyncIterator[Gateway]:
    app = App(settings)
    addresses = await app.start()
    channel = Channel(addresses.host, addresses.grpc_port, ssl=client)
    base = f"http{'s' if client else ''}://{addresses.host}:{addresses.http_port}"
    connector = aiohttp.TCPConnector(ssl=client or True)
    try:
        async with aiohttp.ClientSession(base, connector=connector) as http:
            stub = AnalyticsServiceStub(channel)
            yield Gateway(app, addresses.host, addresses.grpc_port, addresses.http_port, stub, http)
    finally:
        channel.close()
        await app.stop(5)
