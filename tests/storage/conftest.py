"""Fixtures of storage's tests: an open database and somebody who looks into it; and for the embedded one a place
for it, a made cluster, processes that hold one."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from ingestor.storage.database import Database
from ingestor.storage.embedded import identity, leftovers
from ingestor.storage.embedded.sockets import SocketDirectory
from tests.storage.deliveries import Gateway, Reader, opened
from tests.storage.embedded_kit import Env, Hold, Holder, open_directory, server_uid


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database."""
    async with opened(database_url) as database:
        yield database


@pytest.fixture
async def gateway(database: Database) -> Gateway:
    """A journal that has stored nothing in it."""
    return Gateway(database)


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[Reader]:
    """A connection to it."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts holders, and ends those that a failed test has left."""
    holders: list[Holder] = []

    def start(
        data_dir: Path, sql: str = "", user: str = "", env: Env = None, prefix: Sequence[str] = ()
    ) -> Holder:
        holders.append(Holder(data_dir, sql, user, env, prefix))
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter and only we can write to."""
    path = open_directory()
    yield path
    for data_dir in path.glob("**/postgres"):
        leftovers.kill_all(data_dir, server_uid(data_dir), signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data_dir() -> Iterator[Path]:
    path = open_directory()
    holder = Holder(path / "data")
    holder.dsn()
    holder.close()
    yield path / "data"
    shutil.rmtree(path)


@pytest.fixture
def data_dir(shared_data_dir: Path) -> Iterator[Path]:
    """A stopped database, made once and mended after each test, because initdb and copying are slow."""
    pgdata = shared_data_dir / "postgres"
    facts = pgdata.stat()
    kept = {path: path.read_bytes() for path in (pgdata / "PG_VERSION", pgdata / "pg_hba.conf")}
    yield shared_data_dir
    os.chown(pgdata, facts.st_uid, facts.st_gid)
    leftovers.kill_all(pgdata, facts.st_uid, signal.SIGKILL)
    SocketDirectory(shared_data_dir, identity.choose(pgdata)).remove()
    for path, content in kept.items():
        path.write_bytes(content)
        os.chown(path, facts.st_uid, facts.st_gid)
    for path in shared_data_dir.iterdir():
        if path != pgdata:
            path.unlink() if not path.is_dir() else shutil.rmtree(path)
