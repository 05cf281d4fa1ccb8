"""Pages of other sites: which may call, and what they are told."""

from __future__ import annotations

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
