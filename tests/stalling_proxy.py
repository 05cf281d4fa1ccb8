"""A TCP proxy, before PostgreSQL or before us, that can stop passing anything on, as a network does that swallows
packets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import parse_qs, urlsplit

_Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StallingProxy:
    """Passes bytes on while `flowing` is set, and takes connections unless it refuses them."""

    def __init__(self, connect: Callable[[], Awaitable[_Connected]]) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._connect = connect
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._word: bytes | None = None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        server_reader, server_writer = await self._connect()
        for source, target in ((reader, server_writer), (server_reader, writer)):
            task = asyncio.create_task(self._pass(source, target, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await source.read(65536):
                await self.flowing.wait()
                target.write(data)
                await target.drain()
                if self._word is not None and self._word in data:
                    self._word = None
                    client.transport.abort()
                    await asyncio.sleep(0.5)  # the server works on
        except ConnectionError:
            pass
        finally:
            target.close()

    def deaf_after(self, word: bytes) -> None:
        """When the client has sent this word, it is passed on and the client's connection is cut: whatever the
        server makes of it, nobody hears."""
        self._word = word

    async def refuse(self) -> None:
        """No connection any more, as when the server is down: those that are open are cut."""
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def accept(self) -> None:
        """The server is there again."""
        self._refusing = False

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def stalling(database_url: str) -> AsyncIterator[tuple[str, StallingProxy]]:
    """The address of that database through a proxy on loopback, and the proxy."""
    parts = urlsplit(database_url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    path = f"{query['host']}/.s.PGSQL.{query['port']}"
    async with _listening(partial(asyncio.open_unix_connection, path)) as (port, proxy):
        yield f"postgresql://{query['user']}@127.0.0.1:{port}{parts.path}", proxy


@asynccontextmanager
async def stalling_port(port: int) -> AsyncIterator[tuple[int, StallingProxy]]:
    """The same for a port on loopback."""
    async with _listening(partial(asyncio.open_connection, "127.0.0.1", port)) as found:
        yield found


@asynccontextmanager
async def _listening(
    connect: Callable[[], Awaitable[_Connected]],
) -> AsyncIterator[tuple[int, StallingProxy]]:
    proxy = StallingProxy(connect)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], proxy
    finally:
        server.close()
        await proxy.end()
