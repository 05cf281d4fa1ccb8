"""`ingestor serve` as a user has it, once for each module: its tests tell their rows apart by their service."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest_asyncio

from tests.conftest import fresh_database
from tests.server_process import ServerProcess, serve


@dataclass
class Served:
    """The server, and the database that it stores into."""

    server: ServerProcess
    database_url: str

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    async def rows(self, service: str, count: int) -> list[tuple[Any, ...]]:
        """The metric, value and labels of what is stored of this service, by value, as soon as it is so many."""
        query = (
            "SELECT metric_name, value, labels::text FROM labeled_metrics WHERE service_name = $1 ORDER BY 2"
        )
        connection = await asyncpg.connect(self.database_url)
        try:
            async with asyncio.timeout(30):
                while len(found := await connection.fetch(query, service)) < count:
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()
        return [tuple(row) for row in found]

    @asynccontextmanager
    async def nothing_committed(self) -> AsyncIterator[None]:
        """Within it, whoever waits for a commit waits: the table is locked."""
        connection = await asyncpg.connect(self.database_url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(postgres: str) -> AsyncIterator[Served]:
    """The server with its defaults."""
    with tempfile.TemporaryDirectory(prefix="ingestor-test-") as folder:
        async with fresh_database(postgres) as url, serve(Path(folder), database_url=url) as server:
            yield Served(server, url)
