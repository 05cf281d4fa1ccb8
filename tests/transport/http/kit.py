"""What the tests of the HTTP side share: a server without a gateway, and a client in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool

from ingestor.transport.http import HttpServer, Page
from ingestor.transport.transcoding import Router

GOOD = '{"serviceName":"s","metricName":"m","value":1}'
POST = b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def serving(
    pages: dict[str, Page] | None = None, **options: Any
) -> AsyncIterator[tuple[HttpServer, int]]:
    """A server without a gateway, of one route: it answers with its body."""

    async def call(body: bytes, query: str) -> str:
        assert query == ""
        return body.decode()

    def match(method: str, path: str) -> Any:
        here = path == "/v1/metrics"
        return (
            SimpleNamespace(call=call, takes_body=True, rpc=rpc)
            if here
            else Router([], DescriptorPool()).match(method, path)
        )

    rpc = SimpleNamespace(path="/a.B/C", streams=False)
    router: Any = SimpleNamespace(match=match, paths={rpc.path}, keep_off=lambda paths: None)
    server = HttpServer(router, pages or {}, body_bytes_max=1000, **options)
    try:
        yield server, await server.start("127.0.0.1", 0)
    finally:
        await server.close()


class RawClient:
    """One connection, for bytes that no client would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next response."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers.get("Content-Length", 0)))
        return int(first.split()[1]), headers, body

    async def rest(self) -> bytes:
        """All that still comes, until the server ends the connection."""
        return await self._reader.read()

    async def begin(self) -> None:
        """Begins a call that never ends by itself, and returns when the server reads its body."""
        self.writer.write(POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await self.answer())[0] == 100


@asynccontextmanager
async def raw(port: int, request: bytes = b"") -> AsyncIterator[RawClient]:
    """A connection on which these bytes were sent. All must be over in 10 s."""
    async with asyncio.timeout(10):
        client = RawClient(*await asyncio.open_connection("127.0.0.1", port))
        client.writer.write(request)
        try:
            yield client
        finally:
            client.writer.close()
