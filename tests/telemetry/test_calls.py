"""Each call moves one series, by its rpc, protocol and code, once; in the lane and in grpclib's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeAlias

import pytest
from grpclib import GRPCError
from h2.settings import SettingCodes
from ingestor_api.analytics.v1 import AckLevel, LogMetricRequest, LogMetricsRequest, Metric
from prometheus_client.samples import Sample

from ingestor.journal import MemoryJournal
from tests.gateway import Gateway, gateway
from tests.transport.grpc.kit import GOOD, framed, waiting, without_room
from tests.transport.grpc.raw_h2 import RawClient

Counts: TypeAlias = dict[tuple[str, str, str], float]

ONE = "analytics.v1.AnalyticsService/LogMetric"
BATCH = "analytics.v1.AnalyticsService/LogMetrics"
METRIC = {"serviceName": "s", "metricName": "m", "value": 1}
REQUEST = LogMetricRequest("s", "m", 1.0)
COMMITTED = bytes(LogMetricRequest("s", "m", 1.0, ack=AckLevel.COMMITTED))


@pytest.fixture(params=[True, False], ids=["lane", "grpclib"])
def lane(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def running(database_url: str, lane: bool) -> AsyncIterator[Gateway]:
    async with gateway(database_url, grpc_lane=lane) as started:
        yield started


def counts(running: Gateway) -> Counts:
    """The series of ingestor_rpc_total that have moved."""
    samples = [sample for family in running.app.telemetry.registry.collect() for sample in family.samples]
    moved = {
        (each.labels["rpc"], each.labels["protocol"], each.labels["code"]): each.value
        for each in samples
        if each.name == "ingestor_rpc_total" and each.value
    }
    timed = sum(each.value for each in samples if each.name == "ingestor_rpc_seconds_count")
    assert timed == sum(moved.values())
    assert {took_s(samples, rpc, protocol) > 0 for rpc, protocol, _ in moved} <= {True}
    return moved


def took_s(samples: Iterable[Sample], rpc: str, protocol: str) -> float:
    """All calls of this rpc together."""
    return sum(
        each.value
        for each in samples
        if each.name == "ingestor_rpc_seconds_sum"
        and (each.labels["rpc"], each.labels["protocol"]) == (rpc, protocol)
    )


async def counted(running: Gateway, expected: Counts) -> None:
    """Returns when these have moved, each by so much, and no other. The answer may come before its count."""
    ends_at = time.monotonic() + 5
    while counts(running) != expected:
        assert time.monotonic() < ends_at, counts(running)
        await asyncio.sleep(0.005)
    assert [in_flight(running, "grpc"), in_flight(running, "http")] == [0, 0]


def in_flight(running: Gateway, protocol: str) -> float:
    found = running.app.telemetry.registry.get_sample_value("ingestor_rpcs_in_flight", {"protocol": protocol})
    assert found is not None
    return found


async def connected(running: Gateway) -> RawClient:
    client = RawClient()
    await client.connect(running.grpc_port)
    return client


async def test_what_is_answered_is_ok(running: Gateway) -> None:
    """Under its rpc and protocol; pages are no calls."""
    await running.stub.log_metric(REQUEST)
    await running.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 1.0)]))
    for _ in range(2):
        assert (await running.post("/v1/metrics", METRIC))[0] == 200
    async with running.http.get("/metrics") as page:
        text = await page.text()
    assert f'ingestor_rpc_total{{code="OK",protocol="http",rpc="{ONE}"}} 2.0\n' in text
    await counted(running, {(ONE, "grpc", "OK"): 1, (BATCH, "grpc", "OK"): 1, (ONE, "http", "OK"): 2})


async def test_every_series_is_there_from_the_start(running: Gateway) -> None:
    """A first failure is an increase from 0, and not a new series."""
    for protocol in ("grpc", "http"):
        for rpc in (ONE, BATCH, "analytics.v1.AnalyticsService/WriteSeries", "other"):
            labels = {"rpc": rpc, "protocol": protocol, "code": "INTERNAL"}
            assert running.app.telemetry.registry.get_sample_value("ingestor_rpc_total", labels) == 0


async def test_what_is_refused_has_its_code(running: Gateway) -> None:
    """A bad field, and a body that is no message, over both protocols."""
    with pytest.raises(GRPCError):
        await running.stub.log_metric(LogMetricRequest("", "m", 1.0))
    client = await connected(running)
    await client.answer(await client.send(framed(b"\xff")))
    await client.close()
    assert (await running.post("/v1/metrics", {**METRIC, "serviceName": ""}))[0] == 400
    assert (await running.post("/v1/metrics", "no JSON"))[0] == 400
    await counted(running, {(ONE, "grpc", "INVALID_ARGUMENT"): 2, (ONE, "http", "INVALID_ARGUMENT"): 2})


async def test_what_callers_name_is_no_label(running: Gateway) -> None:
    """Unknown methods and paths, and known ones that aren't asked in their way, are one `other`."""
    client = await connected(running)
    for path in ("/a.B/C", "/analytics.v1.AnalyticsService/No"):
        await client.answer(await client.send(framed(GOOD), path=path))
    await client.close()
    assert (await running.post("/v1/no", METRIC))[0] == 404
    async with running.http.put("/v1/metrics") as answer:
        assert answer.status == 405
    await counted(
        running,
        {
            ("other", "grpc", "UNIMPLEMENTED"): 2,
            ("other", "http", "NOT_FOUND"): 1,
            ("other", "http", "UNIMPLEMENTED"): 1,
        },
    )


async def test_what_comes_too_late(database_url: str, lane: bool) -> None:
    """DEADLINE_EXCEEDED, however far the call had come: not begun, half received, waiting for the database."""
    flags: dict[str, Any] = {"grpc_lane": lane, "commit_wait_max": "50ms"}
    async with gateway(database_url, **flags) as running:
        await running.database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        client = await connected(running)
        for stream in (
            await client.send(framed(GOOD), headers={"grpc-timeout": "0n"}),
            await client.send(framed(GOOD)[:3], end=False, headers={"grpc-timeout": "50m"}),
            await client.send(framed(COMMITTED), headers={"grpc-timeout": "50m"}),
        ):
            assert (await client.answer(stream)).headers["grpc-status"] == "4"
        await client.close()
        status, _ = await running.post("/v1/metrics", {**METRIC, "ack": "ACK_LEVEL_COMMITTED"})
        assert status == 504
        await counted(running, {(ONE, "grpc", "DEADLINE_EXCEEDED"): 3, (ONE, "http", "DEADLINE_EXCEEDED"): 1})
        await running.database.transactions.execute("ALTER TABLE away RENAME TO metrics")


async def test_what_the_client_gives_up_is_cancelled(database_url: str, lane: bool) -> None:
    """By a reset, also in one packet with its beginning, and by hanging up; whatever it was waiting for."""
    async with without_room(database_url, grpc_lane=lane) as full:
        client, other = await connected(full), await connected(full)
        stream = await client.send(framed(GOOD))
        await other.send(framed(GOOD))
        await other.send(b"", end=False)
        await waiting(full, 2)
        assert in_flight(full, "grpc") == 3
        await client.reset(stream)
        await client.open_and_reset()
        await other.close()
        await counted(full, {(BATCH, "grpc", "OK"): 1, (ONE, "grpc", "CANCELLED"): 4})
        await client.close()


@pytest.mark.parametrize("told", [True, False], ids=["told", "cut off"])
async def test_what_a_stop_cuts_off_is_cancelled(
    database_url: str, monkeypatch: pytest.MonkeyPatch, lane: bool, told: bool
) -> None:
    """Calls that are not answered in the time that stopping may take, over both protocols. Who waits for room is
    answered in its last moment."""
    async with without_room(database_url, grpc_lane=lane) as full:
        if not told:
            monkeypatch.setattr(MemoryJournal, "offer", lambda *_: asyncio.Event().wait())
        calls = [
            asyncio.ensure_future(full.stub.log_metric(REQUEST)),
            asyncio.ensure_future(full.post("/v1/metrics", METRIC)),
        ]
        while [in_flight(full, "grpc"), in_flight(full, "http")] != [1, 1]:
            await asyncio.sleep(0.005)
        if told:
            await waiting(full, 2)
        await full.app.stop(0.1)
        await asyncio.wait(calls)
        over_grpc, over_http = (call.exception() for call in calls)
        assert isinstance(over_grpc, GRPCError) == told
        assert (over_http is None) == told
        code = "UNAVAILABLE" if told else "CANCELLED"
        await counted(full, {(BATCH, "grpc", "OK"): 1, (ONE, "grpc", code): 1, (ONE, "http", code): 1})


async def test_an_answer_that_the_client_never_reads_is_not_ok(running: Gateway) -> None:
    """The call is under way until its answer may be sent; the client leaves first."""
    client = await connected(running)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    await client.send(framed(GOOD))
    while running.count("ingestor_metrics_received_total") < 1:
        await asyncio.sleep(0.005)
    assert in_flight(running, "grpc") == 1
    await client.close()
    await counted(running, {(ONE, "grpc", "CANCELLED"): 1})
