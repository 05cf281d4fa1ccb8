"""Both kinds of database, each with a reader."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from ingestor.storage.database import Database
from ingestor.storage.opening import open_database
from ingestor.storage.reading import DatabaseReader, ReadLimits
from tests.conftest import TIMESCALE, fresh_database
from tests.storage.deliveries import Gateway


@dataclass
class Stored:
    """An open database, somebody who stores in it, and somebody who reads."""

    url: str
    database: Database
    gateway: Gateway
    reader: DatabaseReader


@pytest.fixture(params=["PostgreSQL", "TimescaleDB"])
async def url(request: pytest.FixtureRequest, postgres: str) -> AsyncIterator[str]:
    """An empty database on plain PostgreSQL, and on TimescaleDB where there is one."""
    server = os.environ.get(TIMESCALE) if request.param == "TimescaleDB" else postgres
    if not server:
        pytest.skip(f"{TIMESCALE} names no TimescaleDB server")
    async with fresh_database(server) as fresh:
        yield fresh


@pytest.fixture
async def stored(url: str) -> AsyncIterator[Stored]:
    database = await open_database(url, column_store="auto")
    reader = await database.open_reader(url, ReadLimits())
    yield Stored(url, database, Gateway(database), reader)
    await database.close(5)
