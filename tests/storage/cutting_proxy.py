"""A TCP proxy before PostgreSQL that cuts the connection at a COMMIT: a network that fails at the worst moment.

Whether the COMMIT gets through before it does is the test's to choose; what it answers never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

# asyncpg sends BEGIN and COMMIT as simple queries, whose text ends in a zero.
_COMMIT = b"COMMIT\0"


class CuttingProxy:
    """Passes bytes on, until it is told to cut."""

    def __init__(self, socket_path: str) -> None:
        self.cuts = 0
        self._socket_path = socket_path
        self._armed: bool | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def cut_commit(self, *, passed_on: bool) -> None:
        """At the next COMMIT: after it was passed on and answered, or before the database has seen it."""
        self._armed = passed_on

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        database_reader, database_writer = await asyncio.open_unix_connection(self._socket_path)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        answers = asyncio.create_task(_pass(database_reader, writer))
        try:
            if commit := await self._until_commit(reader, database_writer):
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
                await self._cut(commit, database_reader, database_writer)
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            self._tasks.discard(task)
            database_writer.close()
            writer.close()

    async def _until_commit(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> bytes:
        """Passes on what comes before a COMMIT that is to be cut, and returns that."""
        while data := await source.read(65536):
            if self._armed is not None and data.endswith(_COMMIT):
                return data
            target.write(data)
            await target.drain()
        return b""

    async def _cut(self, commit: bytes, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        passed_on, self._armed = self._armed, None
        self.cuts += 1
        if passed_on:
            target.write(commit)
            await target.drain()
            assert await source.read(65536), "so that it has been committed"

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()


@asynccontextmanager
async def cutting(database_url: str) -> AsyncIterator[tuple[str, CuttingProxy]]:
    """The address of that database through a proxy on loopback, and the proxy."""
    parts = urlsplit(database_url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    proxy = CuttingProxy(f"{query['host']}/.s.PGSQL.{query['port']}")
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{query['user']}@127.0.0.1:{port}{parts.path}", proxy
    finally:
        server.close()
        await proxy.end()
