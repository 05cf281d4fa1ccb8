"""Pages of other sites: which may call, and what they are told."""

from __future__ import annotations

import pytest

from ingestor.metadata import CallMetadata
from tests.transport.library.service import Library
from tests.transport.transcoding.served import Served, serving

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


EVIL = {"Origin": "https://evil.example"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# Methods and paths that change something, in a call and in a stream.
WRITES = [("POST", "/v1/books/x:tag"), ("DELETE", "/v1/books/x"), ("POST", "/v1/books:import")]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_no_other_site_can_write_through_a_browser(
    library: Library, served: Served, method: str, path: str
) -> None:
    """A form is sent without a preflight request: the answer can't be read, but it would be done."""
    for origin in (
        "https://evil.example",
        "null",
        "",
        "https://127.0.0.1",
        f"https://x127.0.0.1:{served.port}",
    ):
        for headers in (FORM, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            body = b"" if method == "DELETE" else b"[]"
            answer = await served.ask(method, path, body, {**headers, "Origin": origin})
            assert (answer.status, answer.json["code"]) == (403, 7)
            assert "CORS_ORIGINS" in answer.json["message"]
    assert library.requests == []


async def test_who_may_write(library: Library, served: Served) -> None:
    """Who is no browser, our own pages, also where a proxy says another Host, and pages of the sites that may."""
    ours = {"Origin": f"http://127.0.0.1:{served.port}"}
    beyond = {"Origin": f"https://127.0.0.1:{served.port}"}
    for headers in (
        {},
        ours,
        beyond,
        {**EVIL, "Sec-Fetch-Site": "same-origin"},
        {**EVIL, "Sec-Fetch-Site": "none"},
    ):
        assert (await served.ask("DELETE", "/v1/books/x", b"", headers)).status == 200
    for origins in (["https://a.example"], ["*"]):
        async with serving(library, cors_origins=origins) as other:
            assert (await other.ask("DELETE", "/v1/books/x", b"", ORIGIN)).status == 200
            expected = 200 if origins == ["*"] else 403
            assert (await other.ask("DELETE", "/v1/books/x", b"", EVIL)).status == expected


async def test_other_sites_may_ask_for_what_changes_nothing(served: Served) -> None:
    """They can't read it; the browser sees to that."""
    assert (await served.ask("GET", "/v1/books/x", headers=EVIL)).status == 200
    assert (await served.ask("OPTIONS", "/v1/books/x", headers=EVIL)).status == 204
