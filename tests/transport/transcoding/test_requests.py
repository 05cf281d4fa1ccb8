"""The library over HTTP: headers, methods, codings, browsers, and clients that go away."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from loguru import logger
from yarl import URL

from ingestor.deadline import CALLER_SAYS
from ingestor.metadata import METADATA, CallMetadata
from ingestor.transport.http import Content, HttpServer, compression, json_page
from ingestor.transport.http.compression import inflated, takes_gzip
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


@pytest.fixture
async def served(library: Library) -> AsyncIterator[Served]:
    async with serving(library) as running:
        yield running


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def metadata(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[CallMetadata]:
    """What came with each call; the answers carry some metadata back."""
    seen: list[CallMetadata] = []
    append = library.requests.append

    class Requests(list[Any]):
        def append(self, item: Any) -> None:
            here = METADATA.get()
            assert here is not None
            here.sent += [("x-one", "a"), ("x-one", "b"), ("x-bytes-bin", b"\xfb\xff")]
            seen.append(here)
            append(item)

    monkeypatch.setattr(library, "requests", Requests())
    return seen


async def test_paths_and_queries_come_as_they_were_sent(library: Library, served: Served) -> None:
    """No framework decodes them on the way: %2F is no slash, %2B no space."""
    answer = await served.ask("GET", "/v1/books/a%2Fb%3Ago%25?full=false")
    assert (answer.status, answer.json["name"]) == (200, "a/b:go%")
    answer = await served.ask("GET", "/v1/everything?stringValue=a+b%2Bc%26&strings=%C3%BC")
    assert (answer.json["stringValue"], answer.json["strings"]) == ("a b+c&", ["ü"])
    answer = await served.ask("GET", "/v1/files/a%2Fb/c//d")
    assert answer.json == {"path": "a%2Fb/c//d"}


@pytest.mark.parametrize(
    ("method", "path", "told", "field"),
    [
        ("GET", "/v1/books/%zz", (400, 3), None),
        ("GET", "/v1/books/%FF", (400, 3), None),
        ("GET", "/v1/books?nope=1", (400, 3), "nope"),
        ("GET", "/v1/books?pageSize=1&pageSize=2", (400, 3), "pageSize"),
        ("GET", "/v1/books?pageSize=%", (400, 3), None),
        ("GET", "/v1/books?filter=1", (400, 3), "filter"),
        ("GET", "/v1/everything/x/true/1/2026-01-02T03:04:05Z", (400, 3), "int64_value"),
        ("PATCH", "/v1/books/x", (405, 12), None),
        ("GET", "/v1/nothing", (404, 5), None),
    ],
)
async def test_refusals_are_statuses(
    served: Served, method: str, path: str, told: tuple[int, int], field: str | None
) -> None:
    """google.rpc.Status, with the field where there is one."""
    answer = await served.ask(method, path)
    assert (answer.status, answer.json["code"]) == told
    assert sorted(answer.json) == ["code", "details", "message"]
    violations = [each for detail in answer.json["details"] for each in detail["fieldViolations"]]
    assert [each["field"] for each in violations] == ([field] if field else [])


async def test_a_body_where_none_is_taken(served: Served) -> None:
    """Refused with something in it, of whatever type; without one no type is asked for."""
    answer = await served.ask("DELETE", "/v1/books/x", b'{"full":true}')
    assert (answer.status, "takes no body" in answer.json["message"]) == (400, True)
    assert (await served.ask("DELETE", "/v1/books/x", b"{}")).body == b"{}"
    headers = {"Content-Type": "text/csv"}
    assert (await served.ask("GET", "/v1/books/x", headers=headers)).status == 200
    assert (await served.ask("DELETE", "/v1/books/x", b"a,b", headers)).status == 415
    assert (await served.ask("POST", "/v1/books/x:tag", headers=headers)).status == 415


async def test_head_is_get_without_a_body(served: Served) -> None:
    """With its headers, its length among them; refusals too."""
    get, head = [await served.ask(method, "/v1/books/x") for method in ("GET", "HEAD")]
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.body))
    assert (await served.ask("HEAD", "/v1/books?nope=1")).status == 400
    assert (await served.ask("HEAD", "/v1/books/x:tag")).status == 405


async def test_options_tell_what_a_path_takes(served: Served) -> None:
    """204 with Allow; 404 where there is nothing."""
    for path, allowed in (
        ("/v1/books", "GET, HEAD, OPTIONS"),
        ("/v1/books/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/books/x:tag", "OPTIONS, POST"),
        ("/page", "GET, HEAD, OPTIONS"),
    ):
        answer = await served.ask("OPTIONS", path)
        assert (answer.status, answer.headers["Allow"], answer.body) == (204, allowed, b"")
    assert (await served.ask("OPTIONS", "/v1/nothing")).status == 404


async def test_headers_become_metadata_and_back(served: Served, metadata: list[CallMetadata]) -> None:
    """Those with the prefix, bytes under names in -Bin; Authorization, first of all that came under its name; and
    nothing else. Whatever the answer is, it carries what was sent back."""
    headers = {
        "Grpc-Metadata-X-Tenant": "t 1",
        "grpc-metadata-x-key-bin": "+/8=,-_8",
        "Grpc-Metadata-Authorization": "other",
        "Authorization": "Bearer x",
        "Grpc-Metadata-": "nameless",
        "X-Forwarded-For": "1.2.3.4",
    }
    answer = await served.ask("GET", "/v1/books/x", headers=headers)
    assert metadata[-1].received == {
        "x-tenant": ["t 1"],
        "x-key-bin": [b"\xfb\xff", b"\xfb\xff"],
        "authorization": ["Bearer x", "other"],
    }
    assert answer.headers.getall("Grpc-Metadata-X-One") == ["a", "b"]
    assert answer.headers["Grpc-Metadata-X-Bytes-Bin"] == base64.b64encode(b"\xfb\xff").decode()
    await served.ask("GET", "/v1/books/x")
    assert metadata[-1].received == {}, "nothing is left of the request before, on the same connection"
    late = await served.ask("GET", "/v1/books/slow", headers={"Grpc-Timeout": "10m"})
    assert (late.status, late.headers.getall("Grpc-Metadata-X-One")) == (504, ["a", "b"])


@pytest.mark.parametrize(
    ("name", "value"), [("Grpc-Metadata-X-Bin", "*"), ("Grpc-Metadata-X", "ü"), ("Authorization", "ü")]
)
async def test_metadata_that_cannot_be_is_400(
    served: Served, complaints: list[str], name: str, value: str
) -> None:
    """Bytes that are no base64, text that is no ASCII."""
    answer = await served.ask("GET", "/v1/books/x", headers={name: value})
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert name.removeprefix("Grpc-Metadata-").lower() in answer.json["message"].lower()
    assert complaints == []


@pytest.mark.parametrize("item", [("x-bin", "text"), ("x", b"bytes"), ("x", "a\r\nb: c"), ("x: y", "")])
async def test_metadata_that_cannot_be_sent_is_left_out(
    library: Library, served: Served, monkeypatch: pytest.MonkeyPatch, complaints: list[str], item: Any
) -> None:
    """A mistake in a method, which has done its work all the same: it is logged, and must not become a header of
    somebody's choice."""

    class Requests(list[Any]):
        def append(self, _: Any) -> None:
            here = METADATA.get()
            assert here is not None
            here.sent += [item, ("y", "z")]

    monkeypatch.setattr(library, "requests", Requests())
    answer = await served.ask("GET", "/v1/books/x")
    names = [name for name in answer.headers if name.startswith("Grpc-Metadata-")]
    assert (answer.status, names) == (200, ["Grpc-Metadata-y"])
    assert len(complaints) == 1


async def test_a_deadline_ends_the_call(library: Library, served: Served) -> None:
    """504, and the method is cancelled; with no time left it is not begun; what is no timeout is 400."""
    cancelled = library.cancelled
    answer = await served.ask("GET", "/v1/books/slow", headers={"Grpc-Timeout": "20m"})
    assert (answer.status, answer.json["code"]) == (504, 4)
    assert library.cancelled == cancelled + 1
    library.requests.clear()
    assert (await served.ask("GET", "/v1/books/x", headers={"Grpc-Timeout": "0S"})).status == 504
    for text in ("1", "x", "1s", "123456789S", "-1S", ""):
        assert (await served.ask("GET", "/v1/books/x", headers={"Grpc-Timeout": text})).status == 400
    assert library.requests == []
    assert (await served.ask("GET", "/v1/books/x", headers={"Grpc-Timeout": "99999999H"})).status == 200


async def test_a_deadline_also_bounds_the_wait_for_the_body(served: Served) -> None:
    """A client that does not send it is told in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        b"POST /v1/everything HTTP/1.1\r\nHost: x\r\nGrpc-Timeout: 20m\r\nContent-Length: 2\r\n\r\n{"
    )
    async with asyncio.timeout(5):
        assert b" 504 " in await reader.readline()
    writer.close()


async def test_methods_know_whether_the_caller_said_how_long_it_waits(
    library: Library, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each call anew, also on one connection."""
    said: list[bool] = []

    class Requests(list[Any]):
        def append(self, _: Any) -> None:
            said.append(CALLER_SAYS.get())

    monkeypatch.setattr(library, "requests", Requests())
    for headers in ({"Grpc-Timeout": "5S"}, {}, {"Grpc-Timeout": "5S"}):
        await served.ask("GET", "/v1/books/x", headers=headers)
    assert said == [True, False, True]


async def test_a_client_that_goes_away_ends_its_call(
    library: Library, served: Served, complaints: list[str]
) -> None:
    """As over gRPC; nothing is logged."""
    cancelled = library.cancelled
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /v1/books/slow HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        while not library.requests:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        while library.cancelled == cancelled:
            await asyncio.sleep(0.001)
    assert await served.server.drain(5)
    assert complaints == []


async def test_something_that_was_cancelled_within_a_method_is_our_fault(
    library: Library, served: Served, monkeypatch: pytest.MonkeyPatch, complaints: list[str]
) -> None:
    """The caller is there, and gets an answer."""

    class Requests(list[Any]):
        def append(self, _: Any) -> None:
            raise asyncio.CancelledError

    monkeypatch.setattr(library, "requests", Requests())
    answer = await served.ask("GET", "/v1/books/x")
    assert (answer.status, answer.json["code"]) == (500, 13)
    assert len(complaints) == 1


ORIGIN = {"Origin": "https://a.example"}
PREFLIGHT = {**ORIGIN, "Access-Control-Request-Method": "POST"}


async def test_without_origins_there_is_no_cors(served: Served) -> None:
    """Browsers keep other sites' pages out by themselves."""
    for method, headers in (("GET", ORIGIN), ("OPTIONS", PREFLIGHT)):
        answer = await served.ask(method, "/v1/books/x", headers=headers)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert "Vary" not in answer.headers


async def test_pages_of_a_named_site_may_call(library: Library, metadata: list[CallMetadata]) -> None:
    """They are told so in every answer, errors included, and in that to a preflight, which calls nothing. Others
    are told nothing; caches are told that it depends."""
    async with serving(library, cors_origins=["https://a.example", "http://localhost:3000"]) as served:
        answer = await served.ask("GET", "/v1/books/x", headers=ORIGIN)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert set(exposed) == {"Grpc-Metadata-x-one", "Grpc-Metadata-x-bytes-bin"}
        assert answer.headers["Vary"] == "Origin"
        for path in ("/v1/nothing", "/v1/books?nope=1", "/page"):
            answer = await served.ask("GET", path, headers=ORIGIN)
            assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        metadata.clear()
        asked = "content-type, Grpc-Metadata-X, X-Other, grpc-metadata-(x)"
        headers = {**PREFLIGHT, "Access-Control-Request-Headers": asked}
        answer = await served.ask("OPTIONS", "/v1/books/x:tag", headers=headers)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert answer.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
        assert answer.headers["Access-Control-Allow-Headers"] == "content-type, Grpc-Metadata-X"
        assert answer.headers["Access-Control-Max-Age"] == "7200"
        assert (await served.ask("OPTIONS", "/v1/found/x", headers=PREFLIGHT)).status == 204
        assert (await served.ask("OPTIONS", "/page", headers=PREFLIGHT)).status == 204
        assert (await served.ask("OPTIONS", "/v1/nothing", headers=PREFLIGHT)).status == 404
        assert metadata == []
        for origin in ("https://b.example", "https://a.example:444", "null"):
            for method in ("GET", "OPTIONS"):
                other = {**PREFLIGHT, "Origin": origin}
                answer = await served.ask(method, "/v1/books/x", headers=other)
                assert not [name for name in answer.headers if name.lower().startswith("access-control")]
                assert answer.headers["Vary"] == "Origin"


async def test_every_site_may_call_where_all_are_allowed(library: Library) -> None:
    """And the answers are the same for each."""
    async with serving(library, cors_origins=["*"]) as served:
        answer = await served.ask("GET", "/v1/books/x", headers=ORIGIN)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Vary" not in answer.headers
        assert "Access-Control-Allow-Origin" not in (await served.ask("GET", "/v1/books/x")).headers


async def test_a_bomb_is_not_inflated(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """413, when the bound is passed and not when all is in memory; as much as the bound is taken."""
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < BODY_MAX
    peaks: list[int] = []
    inflate = zlib.decompressobj

    class Watched:
        def __init__(self, bits: int) -> None:
            self._inner = inflate(bits)

        def decompress(self, data: bytes, length_max: int) -> bytes:
            content = self._inner.decompress(data, length_max)
            peaks.append(len(content))
            return content

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    answer = await served.ask("POST", "/v1/everything", bomb, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json["code"]) == (413, 8)
    assert "inflated" in answer.json["message"]
    assert sum(peaks) == BODY_MAX + 1
    full = gzip.compress(b"{" + b" " * (BODY_MAX - 2) + b"}")
    assert (await served.ask("POST", "/v1/everything", full, {"Content-Encoding": "gzip"})).status == 200


def test_what_is_inflated_is_what_was_deflated() -> None:
    """Up to the bound, to the byte."""
    content = bytes(range(256)) * 10
    assert inflated(compression.deflated(content), len(content)) == content
    with pytest.raises(Exception, match="larger than 2559 bytes"):
        inflated(compression.deflated(content), len(content) - 1)


async def test_large_answers_leave_in_gzip_for_who_takes_it(served: Served) -> None:
    """Of calls and of pages. Small ones are left as they are; caches are told that it depends."""
    gzipped = {"Accept-Encoding": "gzip"}
    plain = await served.ask("GET", "/v1/books/x?full=true")
    assert ("Content-Encoding" in plain.headers, plain.headers["Vary"]) == (False, "Accept-Encoding")
    answer = await served.ask("GET", "/v1/books/x?full=true", headers=gzipped)
    assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(answer.body) == plain.body
    assert len(answer.body) == int(answer.headers["Content-Length"]) < len(plain.body)
    page = await served.ask("GET", "/page", headers=gzipped)
    assert len(json.loads(gzip.decompress(page.body))["padding"]) == 2000
    small = await served.ask("GET", "/v1/books/x", headers=gzipped)
    assert "Content-Encoding" not in small.headers
    assert "Vary" not in small.headers
    many = await served.ask("GET", "/v1/books?pageSize=1000", headers=gzipped)
    assert len(json.loads(gzip.decompress(many.body))) == 1000


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("GZip;q=0.5", True),
        ("x-gzip", True),
        ("br, gzip;q=0.8, *;q=0.1", True),
        ("*", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("gzip; q = 0.1 , identity;q=0", True),
        ("gzip;q=0.5, identity;q=0.5", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.5, identity;q=0.8", False),
        ("gzip;q=x", False),
    ],
)
def test_who_takes_gzip(header: str, taken: bool) -> None:
    """By the weights that the client gives."""
    assert takes_gzip(header) is taken
