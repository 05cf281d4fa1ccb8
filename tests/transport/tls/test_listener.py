"""TLS handshakes that are begun and left: they are bounded, and others are let in."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from loguru import logger

from ingestor.transport.tls import ALPN_HTTP, Certificates, TlsFiles, listen, listener
from ingestor.transport.tls.listener import TlsServer
from tests.certificates import Pki

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Greeting(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hello")  # type: ignore[attr-defined]
        transport.close()


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    """Runs a coroutine on one of the loops that there are."""

    def on_that_loop(scenario: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(scenario, 20))

    return on_that_loop


async def listening(pki: Pki, handshakes_max: int, host: str = "127.0.0.1") -> tuple[TlsServer, int]:
    files = pki.settings
    context = Certificates(TlsFiles(Path(files["tls_cert"]), Path(files["tls_key"]))).context(ALPN_HTTP)
    server = await listen(Greeting, host, 0, backlog=100, context=context, handshakes_max=handshakes_max)
    served = cast("TlsServer", server)
    return served, served.sockets[0].getsockname()[1]


async def greeted(pki: Pki, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=pki.client())
    try:
        return await reader.read()
    finally:
        writer.close()


async def connected(port: int) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    except OSError:
        client.close()
        raise
    return client


def test_the_handshake_that_began_first_makes_room(pki: Pki, run: Any) -> None:
    """So those who say nothing take so many open files and no more, and keep nobody out."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        server, port = await listening(pki, handshakes_max=3)
        silent = [await connected(port) for _ in range(7)]
        for given_up in silent[:4]:
            assert await loop.sock_recv(given_up, 1) == b""
        assert await greeted(pki, port) == b"hello"
        assert await loop.sock_recv(silent[4], 1) == b""
        assert server.handshakes == 2
        server.close()
        await server.wait_closed()
        for client in silent:
            if client in silent[5:]:
                assert await loop.sock_recv(client, 1) == b""
            client.close()
        with pytest.raises(ConnectionRefusedError):
            await connected(port)

    run(scenario())


def test_who_speaks_no_tls_ends_alone(pki: Pki, run: Any) -> None:
    """Or is gone at once."""

    async def scenario() -> None:
        server, port = await listening(pki, handshakes_max=3)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b""):
            client = await connected(port)
            await asyncio.get_running_loop().sock_sendall(client, said)
            client.close()
        assert await greeted(pki, port) == b"hello"
        while server.handshakes:
            await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()

    run(scenario())


@contextmanager
def no_file_left() -> Iterator[None]:
    """This process can open none more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_nothing_can_be_accepted_it_is_tried_again(
    pki: Pki, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then, which costs next to nothing. It is said once, as often as it comes to that, and who waits is
    served as soon as there is an open file for it."""
    monkeypatch.setattr(listener, "_RETRY_S", 0.02)

    async def scenario() -> None:
        server, port = await listening(pki, handshakes_max=3)
        clients = [socket.socket() for _ in range(2)]
        said: list[str] = []
        told = asyncio.Event()

        def tell(line: str) -> None:
            said.append(line)
            told.set()

        sink = logger.add(tell, level="WARNING", format="{message}")
        for number, client in enumerate(clients):
            client.setblocking(False)
            told.clear()
            with no_file_left():
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
                await told.wait()
                spent_s = time.process_time()
                await asyncio.sleep(0.2)  # some more attempts
                assert time.process_time() - spent_s < 0.1
                assert server.handshakes == number
            while server.handshakes == number:
                await asyncio.sleep(0.01)
            assert len(said) == number + 1
        assert await greeted(pki, port) == b"hello"
        logger.remove(sink)
        assert all(line.startswith("no connection can be accepted: ") for line in said)
        for client in clients:
            client.close()
        server.close()
        await server.wait_closed()

    run(scenario())


def test_an_address_that_is_taken(pki: Pki, run: Any) -> None:
    """OSError, and nothing is left open."""

    async def scenario() -> None:
        server, port = await listening(pki, handshakes_max=3)
        with pytest.raises(OSError, match="in use"):
            await listen(
                Greeting,
                "127.0.0.1",
                port,
                backlog=1,
                context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
                handshakes_max=1,
            )
        server.close()
        await server.wait_closed()

    run(scenario())
