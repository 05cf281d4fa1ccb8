"""The library behind an HTTP server, and a client that shows answers as they came."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from ingestor.transport.http import Content, HttpServer, json_page
from tests.transport.library.service import Library

BODY_MAX = 100_000


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """The library behind a server; what it answers is not inflated."""

    server: HttpServer
    port: int
    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, data: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        url = f"http://127.0.0.1:{self.port}{path}"
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        async with self.session.request(
            method,
            URL(url, encoded=True),
            data=data or None,
            headers=sent,
            skip_auto_headers=["Content-Type"],
        ) as got:
            return Answer(got.status, got.headers, await got.read())


@asynccontextmanager
async def serving(library: Library, **options: Any) -> AsyncIterator[Served]:
    async def page() -> Content:
        return json_page(200, {"padding": "x" * 2000})

    server = HttpServer(library.router, {"/page": page}, body_bytes_max=BODY_MAX, **options)
    try:
        port = await server.start("127.0.0.1", 0)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Served(server, port, session)
    finally:
        await server.close()
