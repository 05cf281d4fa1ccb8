"""The rpcs that read, over both protocols: from the call to the database and back, and what becomes of those who
don't read or go away."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from ingestor_api.analytics.v1 import (
    AckLevel,
    ListSeriesRequest,
    LogMetricsRequest,
    Metric,
    Point,
    QueryMetricsRequest,
    TailMetricsRequest,
)

from ingestor.reading.tokens import _check
from ingestor.tail import TailLimits
from tests.gateway import Gateway, gateway
from tests.storage.deliveries import until

NOON = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


async def log(running: Gateway, *metrics: Metric) -> None:
    """Returns when they are committed."""
    answer = await running.stub.log_metrics(LogMetricsRequest(list(metrics), ack=AckLevel.COMMITTED))
    assert answer.accepted == len(metrics)


def tail_of(running: Gateway, request: TailMetricsRequest) -> Any:
    """What gRPC shows; `aclose` ends it."""
    return running.stub.tail_metrics(request)


async def get(running: Gateway, path: str) -> tuple[int, Any]:
    async with running.http.get(path) as response:
        return response.status, await response.json()


async def test_a_query_over_both_protocols(running: Gateway) -> None:
    """The same answer, with names and labels as they come."""
    labels = {"region": "eu/ü"}
    await log(
        running,
        *(Metric("a/b", "lat%", float(n), NOON + n * MINUTE / 2, labels if n else {}) for n in range(4)),
    )
    request = QueryMetricsRequest("a/b", "lat%", NOON, NOON + 5 * MINUTE, MINUTE, "max", labels)
    answer = await running.stub.query_metrics(request)
    assert answer.points == [Point(NOON, 1.0), Point(NOON + MINUTE, 3.0)]
    assert answer.interval == MINUTE
    range_ = f"start={NOON:%Y-%m-%dT%H:%M:%SZ}&end={NOON + 5 * MINUTE:%Y-%m-%dT%H:%M:%SZ}&interval=60s"
    path = f"/v1/services/a%2Fb/metrics/lat%25:query?{range_}&aggregation=max&labels[region]=eu%2F%C3%BC"
    status, body = await get(running, path)
    assert (status, [point["value"] for point in body["points"]], body["interval"]) == (
        200,
        [1.0, 3.0],
        "60s",
    )
    assert body["points"][1]["time"] == f"{NOON + MINUTE:%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize("interval", ["0s", "-1s", "315576000000s"])
async def test_intervals_that_are_none(running: Gateway, interval: str) -> None:
    """A refusal or an answer, whatever a Duration may hold."""
    status, body = await get(running, f"/v1/services/s/metrics/m:query?interval={interval}")
    assert (status, body.get("message", "interval")[:8]) == (
        200 if interval.startswith("3") else 400,
        "interval",
    )


async def test_series_page_by_page(running: Gateway) -> None:
    await log(running, *(Metric("s", f"m{number}", 1.0, NOON) for number in range(5)))
    found: list[str] = []
    token = ""
    while True:
        page = await running.stub.list_series(ListSeriesRequest("s", page_size=2, page_token=token))
        found += [series.metric_name for series in page.series]
        assert all((each.first_time, each.last_time) == (NOON, NOON) for each in page.series)
        token = page.next_page_token
        if not token:
            break
    assert found == [f"m{number}" for number in range(5)]
    status, body = await get(running, "/v1/series?service_prefix=s&page_size=4")
    assert (status, len(body["series"])) == (200, 4)
    status, body = await get(running, f"/v1/series?service_prefix=x&page_token={body['nextPageToken']}")
    assert (status, body["details"][0]["fieldViolations"][0]["field"]) == (400, "page_token")


@pytest.mark.parametrize(
    "content", ["1", "null", "true", '"ab"', '{"a":1,"b":2}', '[{"x":1},["y"]]', "[]", '["a"]', "[1,2]", "x"]
)
async def test_a_made_up_page_token_is_refused_by_its_name(running: Gateway, content: str) -> None:
    """Whatever is in it, also where it is marked as one of ours."""
    token = urlsafe_b64encode(_check(content.encode(), ("s", "")) + content.encode()).decode().rstrip("=")
    status, body = await get(running, f"/v1/series?service_prefix=s&page_token={token}")
    assert (status, body["details"][0]["fieldViolations"][0]["field"]) == (400, "page_token")


async def test_a_tail_shows_what_is_committed(running: Gateway) -> None:
    """To gRPC and to HTTP, from the first message on; each what it asked for, with time and labels."""
    shown: list[Metric] = []
    tail = tail_of(running, TailMetricsRequest("s"))
    hello = await anext(tail)
    assert (hello.metrics, hello.dropped) == ([], 0)
    async with running.http.get("/v1/metrics:tail?metric_name=m") as lines:
        assert json.loads(await lines.content.readline()) == {"result": {"metrics": [], "dropped": "0"}}
        metrics = [
            Metric("s", "m", 1.0, NOON, {"a": "b"}),
            Metric("s", "n", 2.0, NOON),
            Metric("t", "m", 0.0, NOON),
        ]
        await log(running, *metrics)
        while len(shown) < 2:
            shown += (await anext(tail)).metrics
        assert shown == metrics[:2]
        result = json.loads(await lines.content.readline())["result"]
        assert [(each["serviceName"], each["value"], each["labels"]) for each in result["metrics"]] == [
            ("s", 1.0, {"a": "b"}),
            ("t", 0.0, {}),
        ]
        assert running.count("ingestor_tail_readers") == 2
    await tail.aclose()


async def test_a_tail_refuses_what_is_no_name(running: Gateway) -> None:
    status, body = await get(running, "/v1/metrics:tail?service_name=%00")
    assert (status, body["message"][:12]) == (400, "service_name")


async def readers(running: Gateway) -> float:
    return running.count("ingestor_tail_readers")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_reader_that_is_gone_is_forgotten(running: Gateway, protocol: str) -> None:
    """Also while nothing is committed."""
    if protocol == "grpc":
        tail = tail_of(running, TailMetricsRequest())
        await anext(tail)
        assert await readers(running) == 1
        await tail.aclose()
    else:
        async with running.http.get("/v1/metrics:tail") as lines:
            await lines.content.readline()
            assert await readers(running) == 1
            lines.close()

    async def forgotten() -> bool:
        return await readers(running) == 0

    await until(forgotten)


async def test_a_tail_ends_when_the_server_stops(database_url: str) -> None:
    """With UNAVAILABLE, at once, and the stop is not held up."""
    async with gateway(database_url) as running:
        tail = tail_of(running, TailMetricsRequest())
        await anext(tail)
        async with running.http.get("/v1/metrics:tail") as lines:
            await lines.content.readline()
            stopping = asyncio.create_task(running.app.stop(5))
            with pytest.raises(GRPCError) as caught:
                await asyncio.wait_for(anext(tail), 5)
            assert caught.value.status is Status.UNAVAILABLE
            assert json.loads(await lines.content.readline())["error"]["code"] == 14
        assert await asyncio.wait_for(stopping, 5) == 0


async def test_a_reader_that_stops_reading_holds_up_nobody(running: Gateway) -> None:
    """All is stored meanwhile, what is kept for it is bounded, and once it reads it is told what it missed."""
    running.app._tail._limits = TailLimits(rows=1_000, rows_per_second=10**9)
    reader, writer = await asyncio.open_connection(running.host, running.http_port, limit=2**19)
    writer.write(b"GET /v1/metrics:tail HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\n\r\n")
    rows = 0
    while not running.count("ingestor_tail_dropped_rows_total"):
        await log(
            running, *(Metric("s" * 200, "m" * 200, float(rows + number), NOON) for number in range(2_000))
        )
        rows += 2_000
        assert rows < 400_000
    assert running.count("ingestor_metrics_committed_total") == rows
    assert sum(watch.held_bytes for watch in running.app._tail._watches) < 1024**2
    shown: list[float] = []
    dropped = 0
    while len(shown) + dropped < rows:
        line = await asyncio.wait_for(reader.readuntil(b"}\n"), 5)
        result = json.loads(line[line.index(b"{") :])["result"]
        dropped += int(result["dropped"])
        shown += [each["value"] for each in result["metrics"]]
    assert shown == sorted(shown)
    assert dropped == running.count("ingestor_tail_dropped_rows_total") > 0
    writer.close()


async def test_while_the_database_is_away_reading_is_refused(database_url: str) -> None:
    """With UNAVAILABLE, and not later than at once."""
    async with gateway(database_url) as running:
        assert running.app._storing._reader is not None
        running.app._storing._reader.move("postgresql://127.0.0.1:1/nowhere")
        status, body = await get(running, "/v1/series")
        assert (status, body["code"]) == (503, 14)


async def test_a_deadline_ends_a_query(running: Gateway) -> None:
    """The caller's, when it is the earlier."""
    async with running.database.transactions.transaction() as connection:
        await connection.execute("LOCK TABLE metrics")
        headers = {"Grpc-Timeout": "200m"}
        async with running.http.get("/v1/services/s/metrics/m:query", headers=headers) as response:
            assert (response.status, (await response.json())["code"]) == (504, 4)


async def test_queries_are_held_to_their_settings(database_url: str) -> None:
    """The time that each may take, and what all of them get of it while storing is busy."""
    limits: dict[str, Any] = {"query_connections": 50, "query_timeout": "1500ms", "query_share": 0.02}
    async with (
        gateway(database_url, journal="memory", batch_size=2_500, **limits) as running,
        running.database.transactions.transaction() as connection,
    ):
        await connection.execute("LOCK TABLE metrics")
        await running.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 1.0)] * 2_500))
        worker = running.app._storing._worker
        assert worker is not None
        while not worker.busy:
            await asyncio.sleep(0.01)
        asked = (get(running, "/v1/services/s/metrics/m:query") for _ in range(15))
        answers = await asyncio.gather(*asked)
    told = {status: body["message"] for status, body in answers}
    assert "1.5 s (QUERY_TIMEOUT)" in told[504]
    assert "2% of the time meanwhile (QUERY_SHARE)" in told[429]
