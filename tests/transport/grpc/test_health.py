"""grpc.health.v1, from an independent client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from ingestor_api.analytics.v1 import LogMetricRequest

from ingestor.transport.grpc import HealthService
from tests.gateway import Gateway, gateway
from tests.transport.grpc.kit import (
    connected,
    framed,
    give_room,
    listening,
    messages,
    waiting,
    without_room,
)

SERVICE = "analytics.v1.AnalyticsService"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def asking(service: str) -> bytes:
    return HealthCheckRequest(service=service).SerializeToString()


def status(answer: bytes) -> int:
    return HealthCheckResponse.FromString(answer).status


class Patient:
    """What is asked of it, and how often."""

    def __init__(self) -> None:
        self.well = True
        self.asked = 0
        self.fails = False

    async def __call__(self) -> bool:
        self.asked += 1
        if self.fails:
            msg = "no pulse"
            raise RuntimeError(msg)
        return self.well


@asynccontextmanager
async def watched(patient: Patient, **options: Any) -> AsyncIterator[tuple[grpc.aio.Channel, HealthService]]:
    health = HealthService(patient, [SERVICE], poll_interval_s=0.01, **options)
    async with (
        listening(health.rpcs()) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel, health


def watch(channel: grpc.aio.Channel, service: str = "") -> Any:
    method: Any = channel.unary_stream(WATCH)
    return method(asking(service))


async def check(channel: grpc.aio.Channel, service: str = "") -> int:
    method: Any = channel.unary_unary(CHECK)
    return status(await method(asking(service)))


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_a_started_server_serves(running: Gateway, service: str) -> None:
    """The whole of it, and the service by its name."""
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        assert await check(channel, service) == SERVING
        assert status(await watch(channel, service).read()) == SERVING


async def test_an_unknown_service_is_not_found(running: Gateway) -> None:
    """NOT_FOUND for Check; Watch goes on, in case that it comes to be known."""
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(channel, "nobody")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watching = watch(channel, "nobody")
        assert status(await watching.read()) == HealthCheckResponse.SERVICE_UNKNOWN
        assert not watching.done()


async def readiness(running: Gateway) -> str:
    async with running.http.get("/readyz") as response:
        return str((await response.json())["status"])


async def test_who_is_not_ready_does_not_serve(database_url: str) -> None:
    """A full queue is `not ready`."""
    async with without_room(database_url) as full, grpc.aio.insecure_channel(full.grpc_address) as channel:
        call = asyncio.create_task(full.stub.log_metric(LogMetricRequest("s", "m", 1.0)))
        await waiting(full, 1)
        assert await readiness(full) == "not ready"
        assert await check(channel) == NOT_SERVING
        await give_room(full)
        await call


async def test_who_is_degraded_serves(database_url: str) -> None:
    """As a disk journal does whose database takes nothing."""
    async with gateway(database_url, journal="disk") as running:
        await running.database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        await running.stub.log_metric(LogMetricRequest("s", "m", 1.0))
        while await readiness(running) != "degraded":
            await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(running.grpc_address) as channel:
            assert await check(channel) == SERVING
        await give_room(running)


async def test_watchers_hear_of_changes() -> None:
    """All of them, each change once, and by one poll, which ends with the last of them. A check that fails in an
    unforeseen way is no health."""
    patient = Patient()
    async with watched(patient) as (channel, _):
        watchings = [watch(channel, service) for service in ("", SERVICE) for _ in range(10)]
        for well, fails, expected in (
            (True, False, SERVING),
            (False, False, NOT_SERVING),
            (True, False, SERVING),
            (True, True, NOT_SERVING),
        ):
            patient.well, patient.fails = well, fails
            heard = await asyncio.gather(*(each.read() for each in watchings))
            assert [status(each) for each in heard] == [expected] * 20
        asked, loop = patient.asked, asyncio.get_running_loop()
        began = loop.time()
        while patient.asked < asked + 20:
            await asyncio.sleep(0.01)
        assert loop.time() - began > 0.1  # twenty polls of one poller, not one poll of each of twenty
        for each in watchings:
            each.cancel()
        while any(task.get_name() == "health-poll" for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


async def test_watchers_are_bounded() -> None:
    """One too many is told so, and when one leaves there is room again."""
    async with watched(Patient(), watchers_max=2) as (channel, _):
        first, second = watch(channel), watch(channel, "nobody")
        await first.read()
        await second.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch(channel).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        second.cancel()
        while True:
            fourth = watch(channel)
            try:
                assert status(await fourth.read()) == SERVING
            except grpc.aio.AioRpcError:
                continue
            break


async def test_watchers_hear_of_the_end(database_url: str) -> None:
    """NOT_SERVING, and then UNAVAILABLE; one that does not listen holds nobody up."""
    async with gateway(database_url) as running, connected(running.grpc_port) as deaf:
        async with grpc.aio.insecure_channel(running.grpc_address) as channel:
            watching = watch(channel)
            assert status(await watching.read()) == SERVING
            stream = await deaf.send(framed(asking("")), path=WATCH)
            await deaf.until(lambda: bool(messages(deaf.answers[stream].data)))
            deaf.reading.clear()
            stopping = asyncio.create_task(running.app.stop(20))
            assert status(await watching.read()) == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watching.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await asyncio.wait_for(stopping, 5) == 0
        deaf.reading.set()


async def test_a_closed_one_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the check says; and it is closed when its watchers know, not later."""
    monkeypatch.setattr("ingestor.transport.grpc.health._LAST_WORD_S", 60.0)
    async with watched(Patient()) as (channel, health):
        watchings = [watch(channel, service) for service in ("", SERVICE, "nobody")]
        for each in watchings:
            await each.read()
        await asyncio.wait_for(health.close(), 10)
        assert await check(channel) == NOT_SERVING
        assert status(await watch(channel).read()) == NOT_SERVING
