"""Probes and the page of metrics: what they say of a gateway that is well, and of one that is not."""

from __future__ import annotations

import asyncio
import json

import pytest

from ingestor.transport.http import Content
from tests.gateway import Gateway, gateway
from tests.transport.http.kit import GOOD, raw, serving


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
