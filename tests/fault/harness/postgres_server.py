"""A real PostgreSQL on a TCP port that can be killed, started on the same files, copied, and followed by a standby.

It is built from the parts of the embedded one, whose own supervisor would start a killed server by itself. It
never leaves a process behind.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from ingestor.storage.embedded import binaries, cluster, identity, leftovers
from ingestor.storage.embedded.process import Child, run, spawn
from ingestor.storage.embedded.server_log import ServerLog
from ingestor.storage.transactions import AnyConnection
from tests.fault.harness.ports import free_port

USER = cluster.USER
_READY_S_MAX = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "max_wal_size": "512MB",
    "autovacuum_naptime": "5s",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_HBA = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"

_numbers = itertools.count(1)


class PostgresServer:
    """A cluster in `home`, which other users must be able to enter."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self._data = home / "postgres"
        self._owner = identity.choose(self._data)
        self._log = ServerLog(home / "postgres.log")
        self._child: Child | None = None
        programs = binaries.installed()
        hidden = identity.unreachable(self._owner, programs.needed())
        self._programs = binaries.copied(programs, home) if hidden else programs

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    def url(self, database: str = "postgres") -> str:
        """How to reach a database of it."""
        return database_url(self.address, database)

    async def create(self) -> None:
        """Makes the cluster."""
        await cluster.ensure(self._data, self._programs, self._owner, self._log)
        (self._data / "pg_hba.conf").write_text(_HBA)

    async def start(self, **settings: str) -> None:
        """Starts it and waits until it takes connections; what it was killed in is recovered by then."""
        given = {**_SETTINGS, "port": str(self.port), **settings}
        given["cluster_name"] = leftovers.cluster_name(self._data)
        arguments = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        fd = self._log.open()
        try:
            command = [self._programs.program("postgres"), "-D", str(self._data), *arguments]
            self._child = spawn(command, self._owner, fd, signal.SIGQUIT)
        finally:
            os.close(fd)
        await self._ready(self._child)

    async def _ready(self, child: Child) -> None:
        async with asyncio.timeout(_READY_S_MAX):
            while True:
                assert not child.exited.done(), self._log.tail()
                try:
                    connection = await asyncpg.connect(self.url(), timeout=5)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.sleep(0.05)
                else:
                    await connection.close()
                    return

    async def kill(self) -> None:
        """kill -9 of every process of it at once, as when a machine goes down."""
        assert self._child is not None
        self._child.send(signal.SIGKILL)
        leftovers.kill_all(self._data, self._owner.uid, signal.SIGKILL)
        await leftovers.stop_leftovers(self._data, self._owner.uid)
        await self._child.exited
        self._child = None

    async def stop(self) -> None:
        """A fast shutdown, if it runs."""
        if self._child is not None:
            await self._child.end(((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)))
            self._child = None

    async def keep_copy(self, name: str) -> None:
        """Keeps the files of the stopped server under a name."""
        assert self._child is None
        await self._run("/bin/cp", "-a", str(self._data), str(self._data.with_name(name)), as_us=True)

    async def restore_copy(self, name: str) -> None:
        """Puts the files of the stopped server back to what they were."""
        assert self._child is None
        await asyncio.to_thread(shutil.rmtree, self._data)
        await self._run("/bin/cp", "-a", str(self._data.with_name(name)), str(self._data), as_us=True)

    async def standby(self, home: Path) -> PostgresServer:
        """A copy of this running server that is ready to be started, and then follows it."""
        other = PostgresServer(home)
        if not self._owner.is_us:
            os.chown(home, self._owner.uid, self._owner.gid)
        program = self._programs.program("pg_basebackup")
        source = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)
        await self._run(program, *source, "-D", str(other._data), "-R", "-c", "fast", "-X", "stream")
        return other

    async def _run(self, *command: str, as_us: bool = False) -> None:
        who = identity.Identity("us", os.geteuid(), os.getegid()) if as_us else self._owner
        fd = self._log.open()
        try:
            assert await run(command, who, fd, 60) == 0, self._log.tail()
        finally:
            os.close(fd)

    @asynccontextmanager
    async def connected(self, database: str = "postgres") -> AsyncIterator[AnyConnection]:
        """A connection of an administrator."""
        connection = await asyncpg.connect(self.url(database), timeout=10)
        try:
            yield connection
        finally:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=5)

    async def execute(self, query: str, database: str = "postgres") -> None:
        """Runs an administrator's statements."""
        async with self.connected(database) as connection:
            await connection.execute(query)

    @asynccontextmanager
    async def tablespace(self, folder: Path) -> AsyncIterator[str]:
        """The name of one in this folder; databases in it are gone afterwards."""
        if not self._owner.is_us:
            os.chown(folder, self._owner.uid, self._owner.gid)
        name = f"space_{next(_numbers)}"
        await self.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
        try:
            yield name
        finally:
            async with self.connected() as connection:
                inside = await connection.fetch(
                    "SELECT datname FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace"
                    " WHERE spcname = $1",
                    name,
                )
                for row in inside:
                    await connection.execute(f"DROP DATABASE {row['datname']} WITH (FORCE)")
                await connection.execute(f"DROP TABLESPACE {name}")

    async def fresh_database(self, options: str = "") -> str:
        """The name of a new, empty database."""
        name = f"fault_{next(_numbers)}"
        await self.execute(f"CREATE DATABASE {name} {options}")
        return name


def database_url(address: tuple[str, int], database: str, user: str = USER) -> str:
    """A PostgreSQL address."""
    return f"postgresql://{user}@{address[0]}:{address[1]}/{database}"
