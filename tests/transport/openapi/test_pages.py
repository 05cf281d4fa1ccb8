"""The pages of the documentation, as HTTP has them."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from multidict import CIMultiDict

from ingestor.transport.http import HttpServer, answers, compression, documentation
from ingestor.transport.transcoding import Router

# What is on them doesn't matter here; test_document.py looks at that.
DOCUMENT = {"openapi": "3.1.0", "description": "x" * 2000}
PAGES = [*documentation(DOCUMENT)]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a server of these pages."""
    server = HttpServer(Router([], DescriptorPool()), documentation(DOCUMENT), body_bytes_max=1000)
    port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session
    await server.close()


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_sent_once_and_then_only_asked_for(http: aiohttp.ClientSession, path: str) -> None:
    """Its ETag answers 304 without a body; HEAD has the headers of GET."""
    http.headers["Accept-Encoding"] = "identity"
    async with http.get(path) as full, http.head(path) as head:
        assert (full.status, head.status) == (200, 200)
        tag, body = full.headers["ETag"], await full.read()
        assert re.fullmatch('"[0-9a-f]{32}"', tag)
        assert full.headers["Cache-Control"] == "no-cache"
        assert len(body) == int(full.headers["Content-Length"]) == int(head.headers["Content-Length"])
        assert {**full.headers, "Date": ""} == {**head.headers, "Date": ""}
        assert await head.read() == b""
    for known in (tag, f'W/{tag}, "x"', "*"):
        async with http.get(path, headers={"If-None-Match": known}) as same:
            assert (same.status, await same.read(), same.headers["ETag"]) == (304, b"", tag)
    async with http.get(path, headers={"If-None-Match": '"x"'}) as other:
        assert (other.status, await other.read()) == (200, body)
    async with http.get(path, headers={"Accept-Encoding": "gzip"}) as zipped:
        other_bytes = len(body) >= 1024
        assert (zipped.headers["ETag"], await zipped.read()) == (f"W/{tag}" if other_bytes else tag, body)


@pytest.mark.parametrize("path", PAGES)
async def test_gzip_is_made_once(
    http: aiohttp.ClientSession, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask, at once or later, they get the same bytes. Who has the page already is told by the same
    ETag, and caches, by Vary, to keep its forms apart."""
    made: list[int] = []

    def counted(content: bytes) -> bytes:
        made.append(len(content))
        return compression.deflated(content)

    monkeypatch.setattr(answers, "deflated", counted)
    wanted = {"Accept-Encoding": "gzip"}
    async with aiohttp.ClientSession(http._base_url, auto_decompress=False, headers=wanted) as raw:

        async def got(**headers: str) -> tuple[int, CIMultiDict[str], bytes]:
            async with raw.get(path, headers=headers) as response:
                about = CIMultiDict(response.headers)
                del about["Date"]
                return response.status, about, await response.read()

        first, *others = [*await asyncio.gather(got(), got(), got()), await got()]
        async with raw.get(path, headers={"Accept-Encoding": "identity"}) as plain:
            content, tag = await plain.read(), plain.headers["ETag"]
        status, said, empty = await got(**{"If-None-Match": tag})
    assert others == [first] * 3
    assert (status, empty) == (304, b"")
    assert said["ETag"] == first[1]["ETag"]
    if len(content) < 1024:
        assert (made, first[2], tag) == ([], content, first[1]["ETag"])
        assert "Vary" not in plain.headers
    else:
        assert made == [len(content)]
        assert (gzip.decompress(first[2]), first[1]["ETag"]) == (content, f"W/{tag}")
        assert first[1]["Content-Encoding"] == "gzip"
        assert "Content-Encoding" not in plain.headers
        assert {each["Vary"] for each in (first[1], said, plain.headers)} == {"Accept-Encoding"}


async def test_the_page_asks_for_what_is_there_and_for_nothing_else(http: aiohttp.ClientSession) -> None:
    """All that it names is served here, as what it is, and browsers are told to ask no other origin."""
    async with http.get("/docs") as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|unsafe|\*", policy)
    assert "://" not in page
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sorted(f"/{name}" for name in named if not name.startswith("data:")) == sorted(
        {*PAGES} - {"/docs"}
    )
    async with http.get("/docs/swagger-ui.js") as script:
        assert script.content_type == "text/javascript"
        assert script.headers["X-Content-Type-Options"] == "nosniff"
        assert "SwaggerUIBundle" in await script.text()


@pytest.mark.parametrize(
    "path", ["/docs/", "/docs/../docs", "/docs/%2e%2e/docs", "/docs//etc/passwd", "/docs/__init__.py"]
)
async def test_no_other_file_can_be_had(http: aiohttp.ClientSession, path: str) -> None:
    """There are a few fixed paths, and no folder behind them."""
    from yarl import URL

    async with http.get(URL(str(http._base_url).rstrip("/") + path, encoded=True)) as response:
        assert response.status == 404
        assert (await response.json())["code"] == 5
