"""Servers as processes of their own, on free ports, and fresh databases for them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from ingestor.storage.embedded import EmbeddedPostgres

_numbers = itertools.count(1)
_START_S = 30.0


@asynccontextmanager
async def embedded_server() -> AsyncIterator[str]:
    """The address of an embedded PostgreSQL, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ingestor-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)  # noqa: ASYNC240 - once, before anything runs
        postgres = EmbeddedPostgres(Path(name) / "data")
        url = await postgres.start()
        try:
            yield url
        finally:
            await postgres.stop()


@asynccontextmanager
async def fresh_database(server: str) -> AsyncIterator[str]:
    """An empty database on that server, gone afterwards."""
    name = f"ingestor_bench_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.close()


@asynccontextmanager
async def ingestor(database_url: str, **settings: str) -> AsyncIterator[tuple[int, int]]:
    """`ingestor serve` with its defaults but for these settings and a DATA_DIR of its own: its gRPC and HTTP
    ports."""
    with tempfile.TemporaryDirectory(prefix="ingestor-bench-") as folder:
        async with _serving({"DATABASE_URL": database_url, "DATA_DIR": folder, **settings}) as ports:
            yield ports


@asynccontextmanager
async def _serving(settings: dict[str, str]) -> AsyncIterator[tuple[int, int]]:
    settings = {
        "GRPC_PORT": "0",
        "HTTP_PORT": "0",
        "LOG_FORMAT": "json",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ingestor", "serve"),
        env={**os.environ, **{f"INGESTOR_{name}": value for name, value in settings.items()}},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    reading: asyncio.Task[None] | None = None
    said = b""
    try:
        async for line in process.stderr:
            said += line
            logged = json.loads(line) if line.startswith(b"{") else {}
            if "grpc_port" in logged:
                reading = asyncio.create_task(_drained(process.stderr))
                yield logged["grpc_port"], logged["http_port"]
                break
        else:
            msg = f"the server did not start: {said.decode(errors='replace')[-1000:]}"
            raise RuntimeError(msg)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading


@asynccontextmanager
async def echo(kind: str) -> AsyncIterator[int]:
    """One of `echoes`: its port."""
    port = _free_port()
    program = Path(__file__).with_name("echoes.py")
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), kind, str(port))
    try:
        await _listening(port, process)
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _drained(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_START_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    msg = f"a server to compare with ended with {process.returncode}"
    raise RuntimeError(msg)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
