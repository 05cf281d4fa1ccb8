"""The gRPC side: with grpcio as a second, independent client, and with bytes that no client would send."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from h2.errors import ErrorCodes
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    Metric,
)

from tests.gateway import Gateway, gateway
from tests.transport.raw_h2 import LOG_METRIC, RawClient

SERVICE = "/analytics.v1.AnalyticsService"
GOOD = bytes(LogMetricRequest("s", "m", 1.0))


def framed(message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


@pytest.fixture
async def raw(running: Gateway) -> AsyncIterator[RawClient]:
    client = RawClient()
    await client.connect(running.grpc_port)
    yield client
    await client.close()


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
    async with gateway(database_url, queue_capacity=1, admission_wait="0", flush_interval="1h") as small:
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


async def test_a_deadline_in_the_admission_wait_takes_nothing(database_url: str) -> None:
    """DEADLINE_EXCEEDED while waiting for room: not stored later either."""
    async with gateway(
        database_url, queue_capacity=5, admission_wait="1h", flush_interval="1h", batch_size=50
    ) as full:
        database = full.app.database
        await database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        await full.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 1.0)] * 5))
        code, _ = await failure(full, "LogMetric", GOOD, timeout=0.2)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await database.transactions.execute("ALTER TABLE away RENAME TO metrics")
        assert await full.app.stop() == 0
        assert full.count("ingestor_metrics_committed_total") == 5
        assert full.count("ingestor_metrics_received_total") == 5


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no message"),
        (framed(GOOD)[:-1], "ends before"),
        (framed(GOOD)[:3], "ends before"),
        (framed(b"\xff\xff"), "not a valid analytics.v1.LogMetricRequest"),
        (framed(b"\x0a\x02\xff\xfe"), "not a valid"),  # a string that is not UTF-8
        (framed(GOOD[:-1]), "not a valid"),  # cut within a field: betterproto2 would take it
    ],
)
async def test_malformed_messages_are_invalid(
    raw: RawClient, running: Gateway, body: bytes, text: str
) -> None:
    """INVALID_ARGUMENT, never UNKNOWN, nothing stored, and the connection goes on."""
    answer = await raw.answer(await raw.send(body))
    assert answer.headers["grpc-status"] == "3"
    assert text in answer.headers["grpc-message"]
    good = await raw.answer(await raw.send(framed(GOOD)))
    assert good.headers["grpc-status"] == "0"
    assert running.count("ingestor_metrics_received_total") == 1


async def test_the_size_is_checked_at_the_prefix(raw: RawClient) -> None:
    """A declared gigabyte is refused when its five bytes of prefix are read, not when it has been buffered."""
    stream = await raw.send(framed(b"x", length=2**30), end=False)
    answer = await raw.answer(stream)
    assert answer.headers["grpc-status"] == "8"
    assert "MESSAGE_BYTES_MAX" in answer.headers["grpc-message"]


async def test_compressed_messages_are_named(raw: RawClient) -> None:
    """UNIMPLEMENTED says what to send instead."""
    answer = await raw.answer(await raw.send(framed(GOOD, compressed=1)))
    assert answer.headers["grpc-status"] == "12"
    assert "identity" in answer.headers["grpc-message"]


async def test_a_time_beyond_the_calendar_is_refused_and_not_our_fault(raw: RawClient) -> None:
    """Seconds that no datetime can hold, and nanoseconds out of range, are INVALID_ARGUMENT for `time`."""
    for timestamp in (b"\x08" + b"\xff" * 8 + b"\x7f", b"\x10\xff\xff\xff\xff\x07"):
        answer = await raw.answer(
            await raw.send(framed(GOOD + b"\x22" + bytes([len(timestamp)]) + timestamp))
        )
        assert answer.headers["grpc-status"] == "3"
        assert "time:" in answer.headers["grpc-message"]


async def test_draining_says_goaway_and_answers_what_is_under_way(database_url: str) -> None:
    """The open call is answered, a new stream is REFUSED (so that clients send it elsewhere), nothing is lost."""
    flags: dict[str, Any] = {"queue_capacity": 5, "admission_wait": "30s", "batch_size": 50}
    async with gateway(database_url, **flags) as running:
        database = running.app.database
        await database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        await running.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 0.0)] * 5))
        client = RawClient()
        await client.connect(running.grpc_port)
        under_way = await client.send(framed(GOOD))  # waits for room
        while not running.count("ingestor_queue_waiting_requests"):
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(running.app.stop(20))
        await client.until(lambda: client.goaway is not None)
        assert client.goaway == under_way
        late = await client.send_after_goaway(framed(GOOD))
        assert (await client.answer(late)).reset == ErrorCodes.REFUSED_STREAM
        await database.transactions.execute("ALTER TABLE away RENAME TO metrics")
        assert (await client.answer(under_way)).headers["grpc-status"] == "0"
        assert await stopping == 0
        await client.until(lambda: client.closed)
        await client.close()
        assert running.count("ingestor_metrics_committed_total") == 6


async def test_a_silent_client_does_not_hold_up_the_stop(database_url: str) -> None:
    """An idle connection is closed after GOAWAY; stopping takes no longer for it."""
    async with gateway(database_url) as running:
        client = RawClient()
        await client.connect(running.grpc_port)
        await client.answer(await client.send(framed(GOOD)))
        await asyncio.wait_for(running.app.stop(20), 5)
        await client.until(lambda: client.closed)
        await client.close()


async def test_calls_that_never_end_are_cut_off_in_time(database_url: str) -> None:
    """A client that never finishes its request can't hold the server beyond DRAIN_TIMEOUT."""
    async with gateway(database_url) as running:
        client = RawClient()
        await client.connect(running.grpc_port)
        await client.send(b"\0", end=False, path=LOG_METRIC)
        await client.answer(await client.send(framed(GOOD)))
        await asyncio.wait_for(running.app.stop(0.2), 5)
        await client.close()
        assert running.count("ingestor_metrics_committed_total") == 1
