"""The HTTP side, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.gateway import Gateway, gateway

GOOD = '{"serviceName":"s","metricName":"m","value":1}'


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


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
        ('{"serviceName":"s","metricName":"m","value":"x"}', "value", "float"),
        ('{"serviceName":1,"metricName":"m","value":1}', "service_name", ""),
        ('{"serviceName":"s","metricName":"m","value":1,"time":"yesterday"}', "time", ""),
        ('{"serviceName":"s","metricName":"m","value":1,"labels":{"a":1}}', "labels", ""),
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
        ("GET", "/", {}, 404, 5),
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
                assert answer.headers["Allow"] == ("GET, HEAD" if path == "/readyz" else "POST")


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
    async with gateway(database_url, queue_capacity=1, admission_wait="0", flush_interval="1h") as small:
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
        checks = {"accepting": "ok", "queue": "ok", "database": "ok"}
        assert (answer.status, await answer.json()) == (200, {"status": "ready", "checks": checks})
    async with running.http.head("/readyz") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_readiness_says_that_the_database_is_gone(database_url: str) -> None:
    """503 with the reason when batches fail, and 200 again when they are stored."""
    async with gateway(database_url) as running:
        database = running.app.database
        await database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        assert (await running.post("/v1/metrics", GOOD))[0] == 200
        while not running.count("ingestor_flush_failures_total"):
            await asyncio.sleep(0.01)
        async with running.http.get("/readyz") as answer:
            body = await answer.json()
        assert (answer.status, body["status"]) == (503, "not ready")
        assert 'relation "metrics" does not exist' in body["checks"]["database"]
        await database.transactions.execute("ALTER TABLE away RENAME TO metrics")
        while not running.count("ingestor_metrics_committed_total"):
            await asyncio.sleep(0.01)
        async with running.http.get("/readyz") as answer:
            assert answer.status == 200


async def test_readiness_says_that_the_queue_is_full(database_url: str) -> None:
    """503 while requests are refused."""
    async with gateway(database_url, queue_capacity=1, admission_wait="0", flush_interval="1h") as small:
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
    flags: dict[str, Any] = {"queue_capacity": 5, "admission_wait": "30s", "batch_size": 50}
    async with gateway(database_url, **flags) as running:
        database = running.app.database
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
