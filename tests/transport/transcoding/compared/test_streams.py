"""How grpc-gateway answers with streams, and how it is done here: each test is a row of ARCHITECTURE.md's table."""

from __future__ import annotations

import json

from tests.transport.transcoding.served import Served


async def test_lines(served: Served) -> None:
    """streams: a line for each message, `{"result": ...}`, flushed one by one; at the end perhaps
    `{"error": ...}`"""
    whole = await served.ask("GET", "/v1/shelves/1:watch")
    assert (whole.status, whole.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert whole.headers["Transfer-Encoding"] == "chunked"
    lines = [json.loads(line) for line in whole.body.splitlines()]
    assert [line["result"]["name"] for line in lines] == ["shelves/1/books/1", "shelves/1/books/2"]
    half = await served.ask("GET", "/v1/shelves/half:watch")
    result, error = map(json.loads, half.body.splitlines())
    assert (half.status, list(result), error["error"]["code"]) == (200, ["result"], 5)
    both = await served.ask("POST", "/v1/books:import", b'{"name":"a"}\n{"name":"b"}\n')
    assert [json.loads(line)["result"]["name"] for line in both.body.splitlines()] == ["a", "b"]


async def test_errors_before_the_first_message(served: Served) -> None:
    """a stream's error before its first message has its HTTP status, within `{"error": ...}`"""
    none = await served.ask("GET", "/v1/shelves/none:watch")
    assert (none.status, none.json["code"], none.headers["Content-Type"]) == (404, 5, "application/json")
