"""How grpc-gateway tells of errors, and how it is done here: each test is a row of ARCHITECTURE.md's table."""

from __future__ import annotations

from typing import Any

import pytest
from google.rpc.code_pb2 import Code

from ingestor import errors
from ingestor.transport.status import INTERNAL, TABLE
from tests.transport.library.service import Library
from tests.transport.transcoding.served import Served, serving

# runtime.HTTPStatusFromCode
STATUS = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.ALREADY_EXISTS: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
OTHERS = {
    errors.TooLarge: 413,
    errors.SentTooSlowly: 408,
    errors.WrongMethod: 405,
    errors.WrongMediaType: 415,
}


async def test_bodies_of_errors(served: Served) -> None:
    """errors are google.rpc.Status, with their details"""
    answer = await served.ask("GET", "/v1/books?nope=1")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
    [detail] = answer.json["details"]
    assert (answer.json["code"], sorted(answer.json)) == (3, ["code", "details", "message"])
    assert detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert detail["fieldViolations"][0]["field"] == "nope"


def test_statuses() -> None:
    """each gRPC code has its HTTP status"""
    for refusal, answer in TABLE.items():
        assert answer.http == OTHERS.get(refusal, STATUS[answer.code])
    assert INTERNAL.http == STATUS[Code.INTERNAL]


async def test_errors_that_are_no_status(
    library: Library, served: Served, monkeypatch: pytest.MonkeyPatch, complaints: list[str]
) -> None:
    """an error that is no status is 500, code 2, with its text"""

    class Requests(list[Any]):
        def append(self, _: Any) -> None:
            raise RuntimeError("example error")

    monkeypatch.setattr(library, "requests", Requests())
    answer = await served.ask("GET", "/v1/books/x")
    assert (answer.status, answer.json["code"]) == (500, 13)
    assert b"example" not in answer.body
    assert "example error" in complaints[0]


async def test_what_else_http_asks(library: Library) -> None:
    """HEAD, OPTIONS, CORS, gzip are the embedder's business"""
    async with serving(library, cors_origins=["https://a.example"]) as served:
        assert (await served.ask("HEAD", "/v1/books/x")).status == 200
        assert (await served.ask("OPTIONS", "/v1/books/x")).headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"
        headers = {"Origin": "https://a.example", "Accept-Encoding": "gzip"}
        answer = await served.ask("GET", "/v1/books/x?full=true", headers=headers)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert answer.headers["Content-Encoding"] == "gzip"


async def test_health(served: Served) -> None:
    """a health endpoint asks grpc.health.v1"""
    assert (await served.ask("GET", "/page")).status == 200
    assert (await served.ask("GET", "/healthz")).status == 404
