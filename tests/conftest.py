"""What all tests share: a real PostgreSQL (the embedded one, once a run) with a fresh database for each test."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import settings

from ingestor.storage.embedded import EmbeddedPostgres

TIMESCALE = "INGESTOR_TEST_TIMESCALE_URL"

# Property tests make the same examples in each run, so that it is a change that breaks them and not chance; `make
# fuzz` makes others.
settings.register_profile("repeated", derandomize=True)
settings.register_profile("random", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeated"))

_numbers = itertools.count(1)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary directory that other users can pass through: run as root, PostgreSQL is one. (pytest's own
    tmp_path lies under a private directory.)"""
    with tempfile.TemporaryDirectory(prefix="ingestor-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[str]:
    """The address of a PostgreSQL server that lives as long as the test run."""
    with tempfile.TemporaryDirectory(prefix="ingestor-tests-") as folder:
        Path(folder).chmod(0o711)  # run as root, PostgreSQL is another user
        server = EmbeddedPostgres(Path(folder) / "data")
        yield await server.start()
        await server.stop()


@asynccontextmanager
async def fresh_database(server: str, options: str = "") -> AsyncIterator[str]:
    """A new, empty database on that server, with options of CREATE DATABASE; dropped afterwards, whoever is
    connected."""
    name = f"ingestor_test_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"CREATE DATABASE {name} {options}")
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.close()


@pytest.fixture
async def database_url(postgres: str) -> AsyncIterator[str]:
    """The address of an empty database on plain PostgreSQL."""
    async with fresh_database(postgres) as url:
        yield url


@pytest.fixture
async def another_url(postgres: str) -> AsyncIterator[str]:
    """The address of another empty database on it."""
    async with fresh_database(postgres) as url:
        yield url


@pytest.fixture
async def timescale_url() -> AsyncIterator[str]:
    """The address of an empty database on a real TimescaleDB."""
    server = os.environ.get(TIMESCALE)
    if not server:
        pytest.skip(f"{TIMESCALE} names no TimescaleDB server (postgresql://user@host:port/postgres)")
    async with fresh_database(server) as url:
        yield url
