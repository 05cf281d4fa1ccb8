"""Unary calls: answers, deadlines, failures, and callers that go away; with grpcio as a second client."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    Metric,
)
from loguru import logger

from ingestor.errors import Invalid
from tests.gateway import Gateway, gateway
from tests.transport.grpc.kit import GOOD, SERVICE, framed, give_room, serving, without_room
from tests.transport.grpc.raw_h2 import LOG_METRIC, RawClient


def test_the_mends_are_for_this_grpclib() -> None:
    """ingestor/transport/grpc relies on this release's internals: read it again before raising the pin."""
    assert version("grpclib") == "0.4.9"


async def test_grpcio_is_answered(running: Gateway) -> None:
    """An independent implementation of gRPC and of protobuf's bytes agrees with ours."""
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        log_metric: Any = channel.unary_unary(f"{SERVICE}/LogMetric")
        assert LogMetricResponse.parse(await log_metric(GOOD)).success
        log_metrics: Any = channel.unary_unary(f"{SERVICE}/LogMetrics")
        request = LogMetricsRequest([Metric("s", "m", 1.0), Metric("s", "m")])
        response = LogMetricsResponse.parse(await log_metrics(bytes(request)))
    assert (response.accepted, response.rejected[0].index) == (1, 1)


async def failure(
    running: Gateway, method: str, request: bytes, **options: Any
) -> tuple[grpc.StatusCode, RpcStatus]:
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            call: Any = channel.unary_unary(f"{SERVICE}/{method}")
            await call(request, **options)
    metadata: Any = dict(caught.value.trailing_metadata() or ())
    return caught.value.code(), RpcStatus.FromString(metadata.get("grpc-status-details-bin", b""))


async def test_details_reach_grpcio(running: Gateway) -> None:
    """grpc-status-details-bin holds google.rpc.Status with BadRequest."""
    code, status = await failure(running, "LogMetric", bytes(LogMetricRequest("s", "m")))
    assert (code, status.code) == (grpc.StatusCode.INVALID_ARGUMENT, 3)
    bad_request = BadRequest()
    assert status.details[0].Unpack(bad_request)
    assert bad_request.field_violations[0].field == "value"


async def test_overload_tells_grpcio_when_to_come_back(database_url: str) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo."""
    async with gateway(
        database_url, journal="memory", queue_capacity=1, admission_wait="0", flush_interval="1h"
    ) as small:
        await small.stub.log_metric(LogMetricRequest("s", "m", 1.0))
        code, status = await failure(small, "LogMetric", GOOD)
    retry = RetryInfo()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.seconds == 1


async def test_an_unknown_method_is_unimplemented(running: Gateway) -> None:
    """By name, whatever it carries."""
    code, _ = await failure(running, "Nothing", b"")
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_in_the_admission_wait_takes_nothing(database_url: str, problems: list[str]) -> None:
    """DEADLINE_EXCEEDED while waiting for room, told by the server itself: not stored later either."""
    async with without_room(database_url, admission_wait="1h", flush_interval="1h") as full:
        client = RawClient()
        await client.connect(full.grpc_port)
        problems.clear()  # the database's, until here
        answer = await client.answer(await client.send(framed(GOOD), headers={"grpc-timeout": "200m"}))
        assert answer.headers["grpc-status"] == "4"
        await client.close()
        assert not [text for text in problems if "metrics" not in text]
        await give_room(full)
        assert await full.app.stop() == 0
        assert full.count("ingestor_metrics_committed_total") == 5
        assert full.count("ingestor_metrics_received_total") == 5


async def test_a_deadline_that_has_passed_on_arrival_is_told(
    raw: RawClient, running: Gateway, problems: list[str]
) -> None:
    """DEADLINE_EXCEEDED, and nothing was taken."""
    answer = await raw.answer(await raw.send(framed(GOOD), headers={"grpc-timeout": "0n"}))
    assert answer.headers["grpc-status"] == "4"
    assert running.count("ingestor_metrics_received_total") == 0
    assert not problems


@pytest.mark.parametrize("timeout", ["", "5", "m", "1x", "-1S", "1.5S", "123456789S"])
async def test_a_malformed_timeout_is_invalid(raw: RawClient, problems: list[str], timeout: str) -> None:
    """INVALID_ARGUMENT names the header."""
    answer = await raw.answer(await raw.send(framed(GOOD), headers={"grpc-timeout": timeout}))
    assert answer.headers["grpc-status"] == "3"
    assert "grpc-timeout" in answer.headers["grpc-message"]
    assert not problems


async def test_clients_that_go_away_are_no_errors(problems: list[str]) -> None:
    """A reset before, with and after the request's end, and a lost connection, cancel the method in silence."""
    ended = asyncio.Queue[str]()

    async def until_cancelled(body: bytes) -> bytes:
        ended.put_nowait("begun")
        try:
            await asyncio.Event().wait()
        finally:
            ended.put_nowait("ended")
        return b""

    async with serving(until_cancelled) as client:
        await client.reset(await client.send(framed(GOOD)[:7], end=False))
        await client.open_and_reset()
        call = await client.send(framed(GOOD))
        assert await ended.get() == "begun"
        await client.reset(call)
        assert await ended.get() == "ended"
        await client.send(framed(GOOD))
        assert await ended.get() == "begun"
        await client.close()
        assert await ended.get() == "ended"
    assert not problems


async def test_a_method_that_makes_a_refusal_of_its_cancellation_is_no_error(problems: list[str]) -> None:
    """The stream is closed by then: the refusal is told to nobody, and no bug."""
    begun = asyncio.Event()
    refused = asyncio.Event()

    async def refuses(body: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            refused.set()
            msg = "never mind"
            raise Invalid(msg) from None
        return b""

    async with serving(refuses) as client:
        call = await client.send(framed(GOOD))
        await begun.wait()
        await client.reset(call)
        await refused.wait()
        assert (await client.answer(await client.send(b""))).headers["grpc-status"] == "3"
    assert not problems


@pytest.mark.parametrize("error", [KeyError("row"), TimeoutError(), asyncio.CancelledError()])
async def test_a_bug_is_an_error_with_its_traceback(problems: list[str], error: BaseException) -> None:
    """INTERNAL for the caller, and the whole story in the log, once; also for what looks like a deadline or a
    cancellation but is none."""

    async def buggy(body: bytes) -> bytes:
        raise error

    told: list[Any] = []
    sink = logger.add(told.append, level="ERROR", format="{message} {extra[rpc]}")
    async with serving(buggy) as client:
        answer = await client.answer(await client.send(framed(GOOD), headers={"grpc-timeout": "1H"}))
    logger.remove(sink)
    assert answer.headers["grpc-status"] == "13"
    assert "row" not in answer.headers["grpc-message"]
    assert len(told) == len(problems) == 1
    assert LOG_METRIC in told[0]
    assert "in buggy" in told[0]


async def test_a_waiting_call_does_not_hold_its_body() -> None:
    """Nothing but the method has a reference to it: thousands of waiting calls must not fill the memory."""
    counts: list[int] = []

    async def method(body: bytes) -> bytes:
        counts.append(sys.getrefcount(body))
        return b""

    async with serving(method) as client:
        await client.answer(await client.send(framed(bytes(1000))))
    await method(bytes(1001))
    assert counts[0] == counts[1]
