"""The page's files, as HTTP has them."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import AsyncIterator
from posixpath import normpath

import aiohttp
import pytest
from google.protobuf.descriptor_pool import DescriptorPool

from ingestor import page
from ingestor.transport.http import HttpServer, fixed_page
from ingestor.transport.transcoding import Router

FILES = {file.path: file for file in page.files()}
KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# Of uPlot 1.6.31, as its author published it.
UPLOT = {
    "/page/uplot.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "/page/uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a server of these pages, which inflates nothing."""
    pages = {path: fixed_page(kind, body, page.HEADERS) for path, kind, body in FILES.values()}
    server = HttpServer(Router([], DescriptorPool()), pages, body_bytes_max=1000)
    port = await server.start("127.0.0.1", 0)
    base = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession(base, auto_decompress=False) as session:
        yield session
    await server.close()


@pytest.mark.parametrize("path", FILES)
async def test_each_is_what_it_is_and_sent_once(http: aiohttp.ClientSession, path: str) -> None:
    """Its type, a policy that knows this origin alone, and an ETag that saves sending it again."""
    plain = {"Accept-Encoding": "identity"}
    async with http.get(path, headers=plain) as response:
        assert response.status == 200
        assert response.content_type == KINDS.get(path.rpartition(".")[2], "text/html")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; ")
        assert not re.search(r"https?:|data:|unsafe|\*", policy)
        assert await response.read() == FILES[path].body
        tag = response.headers["ETag"]
    async with http.get(path, headers={"If-None-Match": tag}) as same:
        assert (same.status, await same.read()) == (304, b"")


@pytest.mark.parametrize("path", FILES)
async def test_what_is_large_is_sent_in_gzip(http: aiohttp.ClientSession, path: str) -> None:
    """Who takes gzip gets the same file, in fewer bytes, under a weak ETag."""
    async with http.get(path, headers={"Accept-Encoding": "gzip"}) as response:
        body = await response.read()
        zipped = response.headers.get("Content-Encoding") == "gzip"
        assert zipped == (len(FILES[path].body) >= 1024)
        assert (gzip.decompress(body) if zipped else body) == FILES[path].body
        assert response.headers["ETag"].startswith("W/") == zipped
        assert not zipped or response.headers.getall("Vary") == ["Accept-Encoding"]


def test_all_that_is_named_is_there_and_nothing_is_elsewhere() -> None:
    """The page, its modules and styles name only files that are served, and no other origin."""
    markup = FILES["/"].body.decode()
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', markup)
    assert {f"/{name}" for name in named} <= set(FILES)
    for path, file in FILES.items():
        text = file.body.decode()
        if path in UPLOT:
            continue
        assert "://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', ""), path
        for module in re.findall(r'from "(\./[^"]+)"', text):
            assert normpath(f"/page/{module}") in FILES, (path, module)


def test_the_policy_is_kept_by_the_markup() -> None:
    """No script, style or handler within it."""
    markup = FILES["/"].body.decode()
    assert re.findall(r"<script(?![^>]*\bsrc=)", markup) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", markup) == []


def test_every_module_of_ours_is_used() -> None:
    """What no other names is dead."""
    text = "".join(file.body.decode() for path, file in FILES.items() if path not in UPLOT)
    for path in set(FILES) - {"/"}:
        assert path.removeprefix("/page/") in text, path


@pytest.mark.parametrize("path", UPLOT)
def test_the_charts_are_drawn_by_what_its_author_published(path: str) -> None:
    """The package that brings it changed nothing."""
    assert hashlib.sha256(FILES[path].body).hexdigest() == UPLOT[path]
