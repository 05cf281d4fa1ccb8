"""The numbers, served over HTTP, and what tests of its streams send and read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from google.api.http_pb2 import HttpRule

from ingestor.transport.http import HttpServer
from ingestor.transport.transcoding import Router
from tests.transport.streaming_kit import POOL, Numbers

LINE_MAX = 1_000
_RULES = {
    "Count": HttpRule(get="/v1/numbers/{value}:count"),
    "Add": HttpRule(post="/v1/numbers:add", body="*"),
    "Echo": HttpRule(post="/v1/numbers:echo", body="*"),
}


class Served:
    """The numbers over HTTP. `codes` are what was observed of the calls: the rpc's path, and gRPC's code."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self.codes: list[tuple[str, int]] = []
        rpcs = [replace(rpc, http=_RULES[rpc.path.rpartition("/")[2]]) for rpc in self.numbers.rpcs()]
        self.server = HttpServer(
            Router(rpcs, POOL), {}, body_bytes_max=LINE_MAX, observe=self._observe, cors_origins=["*"]
        )
        self.port = 0

    def _observe(self, path: str, protocol: str) -> Callable[[int, float], None]:
        return lambda code, seconds: self.codes.append((path, code))

    def url(self, method: str) -> str:
        return f"http://127.0.0.1:{self.port}/v1/numbers{method}"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ECHO_HEAD = b"POST /v1/numbers:echo HTTP/1.1\r\nHost: x\r\nOrigin: y\r\nTransfer-Encoding: chunked\r\n\r\n"


async def line_of(reader: asyncio.StreamReader) -> Any:
    """The next chunk, which is one line."""
    size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), 5), 16)
    data = await asyncio.wait_for(reader.readexactly(size + 2), 5)
    assert data.endswith(b"\n\r\n")
    return json.loads(data)


def lines_of(text: str) -> list[Any]:
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]
