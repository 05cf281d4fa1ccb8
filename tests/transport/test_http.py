"""The HTTP side, over a real socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from loguru import logger

from ingestor.transport.http import Content, HttpServer, Page
from ingestor.transport.transcoding import Router, json_body
from tests.gateway import Gateway, gateway

GOOD = '{"serviceName":"s","metricName":"m","value":1}'

POST = b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What was logged at WARNING or above, or with a traceback, by us or (aiohttp, asyncio) by way of `logging`."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    def keep(message: Any) -> None:
        if message.record["level"].no >= logging.WARNING or message.record["exception"]:
            lines.append(str(message))

    handler, sink = Handler(logging.WARNING), logger.add(keep, level="TRACE")
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)
    logger.remove(sink)


@asynccontextmanager
async def serving(
    pages: dict[str, Page] | None = None, **options: Any
) -> AsyncIterator[tuple[HttpServer, int]]:
    """A server without a gateway, of one route: it answers with its body."""

    async def call(body: bytes, query: str) -> str:
        assert query == ""
        return body.decode()

    def match(method: str, path: str) -> Any:
        here = path == "/v1/metrics"
        return (
            SimpleNamespace(call=call, takes_body=True, rpc=rpc)
            if here
            else Router([], DescriptorPool()).match(method, path)
        )

    rpc = SimpleNamespace(path="/a.B/C", streams=False)
    router: Any = SimpleNamespace(match=match, paths={rpc.path}, keep_off=lambda paths: None)
    server = HttpServer(router, pages or {}, body_bytes_max=1000, **options)
    try:
        yield server, await server.start("127.0.0.1", 0)
    finally:
        await server.close()


class RawClient:
    """One connection, for bytes that no client would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next response."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers.get("Content-Length", 0)))
        return int(first.split()[1]), headers, body

    async def rest(self) -> bytes:
        """All that still comes, until the server ends the connection."""
        return await self._reader.read()

    async def begin(self) -> None:
        """Begins a call that never ends by itself, and returns when the server reads its body."""
        self.writer.write(POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await self.answer())[0] == 100


@asynccontextmanager
async def raw(port: int, request: bytes = b"") -> AsyncIterator[RawClient]:
    """A connection on which these bytes were sent. All must be over in 10 s."""
    async with asyncio.timeout(10):
        client = RawClient(*await asyncio.open_connection("127.0.0.1", port))
        client.writer.write(request)
        try:
            yield client
        finally:
            client.writer.close()


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-www-form-urlencoded"])
async def test_curl_works_as_one_types_it(running: Gateway, content_type: str | None) -> None:
    """An absent type and that of `curl -d` are read as JSON; the answer is compact JSON."""
    skip = () if content_type else ("Content-Type",)
    headers = {"Content-Type": content_type} if content_type else {}
    async with running.http.post(
        "/v1/metrics", data=GOOD.encode(), headers=headers, skip_auto_headers=skip
    ) as answer:
        assert (answer.status, await answer.text()) == (200, '{"success":true}')
        assert answer.content_type == "application/json"
        assert "aiohttp" not in answer.headers["Server"]


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        (
            '{"timestamp":"2026-01-01T00:00:00Z","serviceName":"s","metricName":"m","value":1}',
            "timestamp",
            "no field",
        ),
        ('{"serviceName":"s","metricName":"m","value":"x"}', "value", "number"),
        ('{"serviceName":1,"metricName":"m","value":1}', "service_name", ""),
        ('{"serviceName":"s","metricName":"m","value":1,"time":"yesterday"}', "time", ""),
        ('{"serviceName":"s","metricName":"m","value":1,"labels":{"a":1}}', 'labels["a"]', ""),
        ('{"serviceName":"s","metricName":"m","value":1,"labels":[]}', "labels", ""),
    ],
)
async def test_a_wrong_field_is_named_by_its_path(running: Gateway, body: str, field: str, text: str) -> None:
    """What JSON can't say for this message: 400, code 3, and the field in proto names."""
    status, answer = await running.post("/v1/metrics", body)
    assert (status, answer["code"]) == (400, 3)
    [violation] = answer["details"][0]["fieldViolations"]
    assert violation["field"] == field
    assert text in violation["description"]
    assert field in answer["message"]


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        ('{"serviceName":"s","metricName":"m","value":[]}', "metrics[1].value"),
        ('{"nope":1}', "metrics[1].nope"),
        ("7", "metrics[1]"),
        ("null", "metrics[1]"),
        ('{"serviceName":"s","metricName":"m","value":1,"time":{"seconds":1}}', "metrics[1].time"),
    ],
)
async def test_a_wrong_field_in_a_list_has_its_index(running: Gateway, metric: str, field: str) -> None:
    """The path leads to the element."""
    status, answer = await running.post("/v1/metrics:batch", f'{{"metrics":[{GOOD},{metric}]}}')
    assert status == 400
    assert answer["details"][0]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"7",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"value":1,"value":2}',
        b"[" * 100_000,
        b'{"metrics":{}}',
    ],
)
async def test_what_is_no_such_json_is_400(running: Gateway, body: bytes) -> None:
    """Never 500, and nothing of our insides in the message."""
    for path in ("/v1/metrics", "/v1/metrics:batch"):
        status, answer = await running.post(path, body)
        assert (status, answer["code"]) == (400, 3)
        assert "Traceback" not in answer["message"]


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


async def test_probes(running: Gateway) -> None:
    """Alive and ready, with each check named; HEAD answers too."""
    async with running.http.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "alive"})
    async with running.http.get("/readyz") as answer:
        checks = dict.fromkeys(("accepting", "queue", "worker", "database", "keys"), "ok")
        body = await answer.json()
        assert (answer.status, body["status"], body["checks"]) == (200, "ready", checks)
        assert body["pending"] == {"metrics": 0, "oldest_age_seconds": 0.0}
        assert 0 < body["journal"]["bytes"] < body["journal"]["room_bytes"]
    async with running.http.head("/readyz") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize(
    ("journal", "expected"), [("memory", (503, "not ready")), ("disk", (200, "degraded"))]
)
async def test_readiness_says_that_the_database_is_gone(
    database_url: str, journal: str, expected: tuple[int, str]
) -> None:
    """With the reason when batches fail, and ready again when they are stored. Without a disk journal it is 503;
    with one metrics are still taken and kept, which is what it is for."""
    async with gateway(database_url, journal=journal) as running:
        database = running.database
        await database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        assert (await running.post("/v1/metrics", GOOD))[0] == 200
        while not running.count("ingestor_flush_failures_total"):
            await asyncio.sleep(0.01)
        async with running.http.get("/readyz") as answer:
            body = await answer.json()
        assert (answer.status, body["status"]) == expected
        assert body["pending"]["metrics"] == 1
        assert body["pending"]["oldest_age_seconds"] > 0
        assert 'relation "metrics" does not exist' in body["checks"]["database"]
        await database.transactions.execute("ALTER TABLE away RENAME TO metrics")
        while not running.count("ingestor_metrics_committed_total"):
            await asyncio.sleep(0.01)
        async with running.http.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "ready")


async def test_readiness_says_that_the_queue_is_full(database_url: str) -> None:
    """503 while requests are refused."""
    async with gateway(
        database_url, journal="memory", queue_capacity=1, admission_wait="0", flush_interval="1h"
    ) as small:
        await small.post("/v1/metrics", GOOD)
        async with small.http.get("/readyz") as answer:
            body = await answer.json()
        assert answer.status == 503
        assert "full" in body["checks"]["queue"]


async def test_metrics_page(running: Gateway) -> None:
    """Prometheus' text format, with the counters that add up and the process's own."""
    await running.post("/v1/metrics", GOOD)
    async with running.http.get("/metrics") as answer:
        text = await answer.text()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "\ningestor_metrics_received_total 1.0\n" in text
    assert "\nprocess_resident_memory_bytes " in text
    assert "_created" not in text


async def test_draining_answers_what_is_under_way_and_refuses_the_rest(database_url: str) -> None:
    """A request that waits for room is answered; a later one on an open connection gets 503 and a close."""
    flags: dict[str, Any] = {
        "journal": "memory",
        "queue_capacity": 5,
        "admission_wait": "30s",
        "batch_size": 50,
    }
    async with gateway(database_url, **flags) as running:
        database = running.database
        await database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        metrics = ",".join([GOOD] * 5)
        # Two requests at once, so that two connections are open later.
        batch = running.post("/v1/metrics:batch", f'{{"metrics":[{metrics}]}}')
        await asyncio.gather(batch, running.post("/v1/metrics", "{}"))
        under_way = asyncio.create_task(running.post("/v1/metrics", GOOD))
        while not running.count("ingestor_queue_waiting_requests"):
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(running.app.stop(20))
        while not running.app.stopping:
            await asyncio.sleep(0)
        async with running.http.post("/v1/metrics", data=GOOD.encode()) as late:
            assert (late.status, (await late.json())["code"]) == (503, 14)
            assert late.headers["Retry-After"] == "1"
            assert late.headers["Connection"] == "close"
        await database.transactions.execute("ALTER TABLE away RENAME TO metrics")
        assert await under_way == (200, {"success": True})
        assert await stopping == 0
        assert running.count("ingestor_metrics_committed_total") == 6


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


async def test_a_body_that_breaks_off_is_answered(complaints: list[str]) -> None:
    """A chunk without a size in mid-body: aiohttp alone would wait for the rest as long as the client stays."""
    async with serving() as (server, port), raw(port) as client:
        await client.begin()
        client.writer.write(b"2\r\n{}\r\nzz\r\n")
        status, headers, body = await client.answer()
        assert (status, headers["Connection"]) == (400, "close")
        assert json.loads(body)["message"] == "the body ended before its end"
        assert await server.drain(5)
    assert complaints == []


@pytest.mark.parametrize("coding", ["lizard", "gzip, gzip", "deflate", "identity, br"])
async def test_unknown_encodings_are_refused(running: Gateway, complaints: list[str], coding: str) -> None:
    """415 whatever is in them; such a body is not taken as it is."""
    headers = {"Content-Encoding": coding}
    async with running.http.post("/v1/metrics", data=GOOD.encode(), headers=headers) as answer:
        said = await answer.json()
    assert (answer.status, said["code"]) == (415, 3)
    assert said["message"] == f"send the body in gzip, or without content-encoding, not {coding}"
    assert running.count("ingestor_metrics_received_total") == 0


GZIPPED = gzip.compress(GOOD.encode(), mtime=0)


@pytest.mark.parametrize("coding", ["gzip", "X-GZip", "identity, gzip"])
async def test_gzipped_bodies_are_read(running: Gateway, coding: str) -> None:
    """As what is in them."""
    headers = {"Content-Encoding": coding}
    async with running.http.post("/v1/metrics", data=GZIPPED, headers=headers) as answer:
        assert (answer.status, await answer.json()) == (200, {"success": True})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (GZIPPED[:-4], "the body's gzip ended before its end"),
        (GZIPPED[:20], "the body's gzip ended before its end"),
        (b"", "the body's gzip ended before its end"),
        (b"corrupt", "the body is not gzip"),
        (GZIPPED[:-8] + b"\0" * 8, "the body is not gzip"),
        (GZIPPED + b"x", "something follows the body's gzip"),
        (GZIPPED + GZIPPED, "something follows the body's gzip"),
    ],
)
async def test_broken_gzip_is_400(running: Gateway, complaints: list[str], body: bytes, said: str) -> None:
    """Cut, corrupt, or with a wrong checksum: nothing of it is taken."""
    headers = {"Content-Encoding": "gzip"}
    async with running.http.post("/v1/metrics", data=body, headers=headers) as answer:
        assert (answer.status, (await answer.json())["message"]) == (400, said)
    assert running.count("ingestor_metrics_received_total") == 0
    assert complaints == []


async def test_the_identity_encoding_is_none(running: Gateway) -> None:
    """It says that the body is as it is."""
    headers = {"Content-Encoding": "Identity"}
    async with running.http.post("/v1/metrics", data=GOOD.encode(), headers=headers) as answer:
        assert answer.status == 200


async def test_a_client_that_waits_is_asked_for_its_body() -> None:
    """`Expect: 100-continue`, as curl sends it with large bodies: refused at once, or asked for, unless the body is
    there already."""
    async with serving() as (_, port), raw(port) as client:
        await client.begin()
        client.writer.write(b"2\r\nhi\r\n0\r\n\r\n")
        status, _, body = await client.answer()
        assert (status, body) == (200, b"hi")
        client.writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nho")
        status, _, body = await client.answer()
        assert (status, body) == (200, b"ho")
        client.writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        assert (await client.answer())[0] == 413


async def test_a_client_that_goes_away_is_no_error(complaints: list[str]) -> None:
    """In mid-body: nobody is there to be answered, and it is not our fault."""
    async with serving() as (server, port), raw(port) as client:
        await client.begin()
        client.writer.write(b"2\r\n{}\r\n")
        client.writer.transport.abort()
        assert await server.drain(5)
    assert complaints == []


async def test_a_large_body_is_parsed_beside_the_loop(
    running: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are answered meanwhile."""
    load: Any = json_body._load
    threads: list[int] = []

    def watched(body: bytes) -> Any:
        threads.append(threading.get_ident())
        return load(body)

    monkeypatch.setattr(json_body, "_load", watched)
    odd = GOOD.replace("serviceName", "service_name")  # not plain enough for columns
    await running.post("/v1/metrics", odd)
    status, _ = await running.post("/v1/metrics:batch", f'{{"metrics":[{",".join([odd] * 1000)}]}}')
    assert status == 200
    assert threads[0] == threading.get_ident() != threads[1]


async def test_a_batch_of_too_many_elements_is_400(running: Gateway) -> None:
    """With the field's name, before any of them is parsed."""
    status, answer = await running.post("/v1/metrics:batch", f'{{"metrics":[{",".join(["{}"] * 50_001)}]}}')
    assert status == 400
    assert answer["message"] == "metrics: has too many elements, 50000 at most: send smaller batches"


async def test_a_number_beyond_all_floats_is_400(running: Gateway, complaints: list[str]) -> None:
    """And so is a name that no protobuf string can hold."""
    for metric, field in (('{"value":1' + "0" * 400 + "}", "value"), ('{"\\ud800":1}', "\\ud800")):
        for path, body in (("/v1/metrics", metric), ("/v1/metrics:batch", f'{{"metrics":[{metric}]}}')):
            status, answer = await running.post(path, body)
            assert status == 400
            assert answer["details"][0]["fieldViolations"][0]["field"].endswith(field)
    assert complaints == []


async def test_a_probe_that_hangs_is_given_up_and_holds_up_no_drain(complaints: list[str]) -> None:
    """503 after the time for it; a drain waits for calls alone."""
    asked = asyncio.Event()

    async def hang() -> Content:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    get = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving({"/readyz": hang}, page_timeout_s=0.05) as (_, port), raw(port, get) as client:
        status, headers, body = await client.answer()
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["message"] == "/readyz did not answer in time"
    asked.clear()
    async with serving({"/readyz": hang}) as (server, port), raw(port, get):
        await asked.wait()
        assert await server.drain(1)
    assert complaints == []


async def test_a_call_that_never_ends_holds_up_no_close(complaints: list[str]) -> None:
    """A client that never sends the rest of its body: the drain says so in time, and the close is prompt."""
    async with serving() as (server, port), raw(port) as client:
        await client.begin()
        assert not await server.drain(0.05)
        async with asyncio.timeout(3):
            await server.close()
    assert complaints == []
