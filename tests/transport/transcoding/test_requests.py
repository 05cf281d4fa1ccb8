"""The library over HTTP: paths, queries, bodies, methods and refusals."""

from __future__ import annotations

import pytest

from tests.transport.library.service import Library
from tests.transport.transcoding.served import Served


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
