"""Every error of the HTTP side is a google.rpc.Status, and quiet."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway import Gateway, gateway
from tests.transport.http.kit import GOOD, POST, raw, serving


async def test_unknown_paths_methods_and_types(running: Gateway) -> None:
    """404 with code 5, 405 with Allow and code 12, 415 with code 3; all as google.rpc.Status."""
    cases: list[tuple[str, str, dict[str, str], int, int]] = [
        ("POST", "/v1/nothing", {}, 404, 5),
        ("POST", "/v1/metrics/", {}, 404, 5),
        ("POST", "/v1/metrics:other", {}, 404, 5),
        ("GET", "/nothing", {}, 404, 5),
        ("GET", "/v1/metrics", {}, 405, 12),
        ("PUT", "/v1/metrics:batch", {}, 405, 12),
        ("POST", "/readyz", {}, 405, 12),
        ("POST", "/v1/metrics", {"Content-Type": "text/csv"}, 415, 3),
    ]
    for method, path, headers, status, code in cases:
        async with running.http.request(method, path, data=b"{}", headers=headers) as answer:
            body: dict[str, Any] = await answer.json()
            assert (answer.status, body["code"]) == (status, code), (method, path)
            assert sorted(body) == ["code", "details", "message"]
            if status == 405:
                assert answer.headers["Allow"] == (
                    "GET, HEAD, OPTIONS" if path == "/readyz" else "OPTIONS, POST"
                )


async def test_a_body_over_the_bound_is_413(database_url: str) -> None:
    """Also when it is sent in chunks without a length; the connection is closed, not read to its end."""
    async with gateway(database_url, message_bytes_max="64KiB") as small:
        status, answer = await small.post("/v1/metrics", b" " * 70_000)
        assert (status, answer["code"], answer["details"]) == (413, 8, [])

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 1000

        async with small.http.post("/v1/metrics", data=chunks()) as chunked:
            assert chunked.status == 413
            assert "MESSAGE_BYTES_MAX" in (await chunked.json())["message"]


async def test_overload_says_when_to_come_back(database_url: str) -> None:
    """429 with Retry-After and RetryInfo."""
    async with gateway(
        database_url, journal="memory", queue_capacity=1, admission_wait="0", flush_interval="1h"
    ) as small:
        assert (await small.post("/v1/metrics", GOOD))[0] == 200
        async with small.http.post("/v1/metrics", data=GOOD.encode()) as answer:
            body = await answer.json()
        assert (answer.status, body["code"]) == (429, 8)
        assert answer.headers["Retry-After"] == "1"
        assert body["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        (b"GET foo HTTP/1.1\r\nHost: x\r\n\r\n", 400, "URL"),
        (b"GET http://[x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "URL"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"NONE / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "HTTPS"),
        (b"GET / HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n", 400, "header"),
        (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 9000 + b"\r\n\r\n", 431, "too large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431, "headers"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400, "chunk size"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n{}", 400, "Transfer-Encoding"),
        (POST + b"Expect: tea\r\n\r\n", 417, "tea"),
        (POST + b"Expect: \xff\r\n\r\n", 417, "udcff"),
        (POST + b"Content-Type: \xff/\xff\r\n\r\n", 415, "application/json"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, "served"),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 404, "served"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 404, "aaa…"),
    ],
)
async def test_every_error_is_a_status_and_quiet(
    complaints: list[str], request_: bytes, status: int, text: str
) -> None:
    """What aiohttp would answer by itself, too: google.rpc.Status, nothing of our insides, no line in the log."""
    async with serving() as (_, port), raw(port, request_) as client:
        got, headers, body = await client.answer()
    said = json.loads(body)
    assert got == status
    assert sorted(said) == ["code", "details", "message"]
    assert text in said["message"]
    assert len(said["message"]) < 200
    assert headers["Server"] == "ingestor"
    assert headers["Content-Type"] == "application/json"
    assert complaints == []
