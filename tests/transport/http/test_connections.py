"""Connections of the HTTP side: bodies that break off or are waited for, clients that leave, and the drain."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.gateway import gateway
from tests.transport.http.kit import GOOD, POST, raw, serving


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


async def test_a_call_that_never_ends_holds_up_no_close(complaints: list[str]) -> None:
    """A client that never sends the rest of its body: the drain says so in time, and the close is prompt."""
    async with serving() as (server, port), raw(port) as client:
        await client.begin()
        assert not await server.drain(0.05)
        async with asyncio.timeout(3):
            await server.close()
    assert complaints == []
