"""The gRPC side: with grpcio as a second, independent client, and with bytes that no client would send."""

from __future__ import annotations

import asyncio
import logging
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.exceptions import StreamTerminatedError
from h2.errors import ErrorCodes
from hyperframe.frame import ExtensionFrame
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    Metric,
)
from loguru import logger

from ingestor.errors import Invalid
from ingestor.transport.grpc import GrpcServer
from ingestor.transport.grpc.headers import timeout_s
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


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """What is logged as WARNING or worse, or with a traceback, by us or by a library."""
    found: list[str] = []

    def of_library(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or record.exc_info:
            found.append(record.getMessage())
        return False

    handler = logging.Handler()
    handler.addFilter(of_library)
    logging.getLogger().addHandler(handler)
    ours = logger.add(found.append, level="WARNING", format="{message}")
    yield found
    logger.remove(ours)
    logging.getLogger().removeHandler(handler)


@asynccontextmanager
async def serving(serve: Callable[[bytes], Awaitable[bytes]]) -> AsyncIterator[RawClient]:
    """A server of one method, without what lies behind it, and a client of it."""

    rpc: Any = SimpleNamespace(path=LOG_METRIC, serve=serve)
    server = GrpcServer([rpc], message_bytes_max=2**20)
    client = RawClient()
    await client.connect(await server.start("127.0.0.1", 0))
    try:
        yield client
    finally:
        await client.close()
        await server.close()


@asynccontextmanager
async def without_room(database_url: str, **flags: Any) -> AsyncIterator[Gateway]:
    """A gateway whose queue is full: calls wait for room, until `give_room`."""
    flags = {"queue_capacity": 5, "admission_wait": "30s", "batch_size": 50, **flags}
    async with gateway(database_url, **flags) as full:
        await full.app.database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        await full.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 0.0)] * 5))
        yield full


async def give_room(full: Gateway) -> None:
    """Lets the database take what waits."""
    await full.app.database.transactions.execute("ALTER TABLE away RENAME TO metrics")


async def waiting(full: Gateway, calls: int) -> None:
    """Returns when so many calls wait for room."""
    while full.count("ingestor_queue_waiting_requests") < calls:
        await asyncio.sleep(0.01)


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


def test_timeouts_are_read_as_the_protocol_says() -> None:
    """At most 8 digits (any, also other scripts', would do for grpclib) and a unit."""
    assert timeout_s({}) is None
    assert timeout_s({"grpc-timeout": "99999999H"}) == 99_999_999 * 3600
    assert timeout_s({"grpc-timeout": "250m"}) == 0.25
    for text in ("\u0661S", "1S\n", "1S "):
        with pytest.raises(Invalid):
            timeout_s({"grpc-timeout": text})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no message"),
        (framed(GOOD)[:-1], "ends before"),
        (framed(GOOD)[:3], "ends before"),
        (framed(b"\xff\xff"), "not a valid analytics.v1.LogMetricRequest"),
        (framed(b"\x0a\x02\xff\xfe"), "not a valid"),  # a string that is not UTF-8
        (framed(GOOD[:-1]), "not a valid"),  # cut within a field: betterproto2 would take it
        (framed(GOOD) + framed(GOOD), "goes on"),
        (framed(GOOD) + b"x", "goes on"),
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


async def test_nothing_is_taken_before_the_request_has_ended(raw: RawClient, running: Gateway) -> None:
    """A whole message without the stream's end is not acted on; empty DATA frames are no end."""
    stream = await raw.send(b"", end=False)
    await raw.send_more(stream, framed(GOOD)[:7], end=False)
    await raw.send_more(stream, end=False)
    await raw.send_more(stream, framed(GOOD)[7:], end=False)
    await raw.send_more(stream, end=False)
    await raw.answer(await raw.send(framed(GOOD)))
    assert running.count("ingestor_metrics_received_total") == 1
    await raw.send_more(stream)
    assert (await raw.answer(stream)).headers["grpc-status"] == "0"
    assert running.count("ingestor_metrics_received_total") == 2


async def test_what_goes_on_is_not_buffered(raw: RawClient, running: Gateway) -> None:
    """A request that goes on is refused while it does, and what it still sends is thrown away: more than the
    connection's window, so the connection goes on as well."""
    stream = await raw.send(framed(GOOD) + b"x", end=False)
    answer = await raw.answer(stream)
    assert answer.headers["grpc-status"] == "3"
    for _ in range(100):
        flood = await raw.send(framed(b"", length=2**30), end=False)
        for _ in range(3):
            await raw.send_more(flood, bytes(2**14), end=False)
        await raw.answer(flood)
    good = await raw.answer(await raw.send(framed(GOOD)))
    assert good.headers["grpc-status"] == "0"
    assert running.count("ingestor_metrics_received_total") == 1


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"path": LOG_METRIC + "\u00e9"}, "12"),
        ({"headers": {"name": "G\u00fcnther"}}, "3"),
        ({"headers": {"n\u00e4me": "x"}}, "3"),
        ({"headers": {"grpc-timeout": "1\u00b2S"}}, "3"),
    ],
)
async def test_bytes_that_are_not_ascii_in_headers_fail_their_call_alone(
    raw: RawClient, problems: list[str], options: dict[str, Any], status: str
) -> None:
    """The call gets a status; others on the connection go on."""
    other = await raw.send(framed(GOOD), end=False)
    answer = await raw.answer(await raw.send(framed(GOOD), **options))
    assert answer.headers["grpc-status"] == status
    await raw.send_more(other)
    assert (await raw.answer(other)).headers["grpc-status"] == "0"
    assert not problems


async def test_binary_metadata_that_is_not_base64_does_not_leave_the_call_without_an_answer(
    raw: RawClient,
) -> None:
    """Nobody here reads it."""
    answer = await raw.answer(await raw.send(framed(GOOD), headers={"trace-bin": "a"}))
    assert answer.headers["grpc-status"] == "0"


async def test_unknown_frames_are_ignored(raw: RawClient, problems: list[str]) -> None:
    """As RFC 9113, 5.5 demands: on the connection and on a stream."""
    stream = await raw.send(framed(GOOD), end=False)
    for stream_id in (0, stream):
        frame = ExtensionFrame(0xBE, stream_id)
        frame.parse_body(memoryview(b"what?"))
        await raw.send_frame(frame)
    await raw.send_more(stream)
    assert (await raw.answer(stream)).headers["grpc-status"] == "0"
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
    """The open call is answered, a new stream is REFUSED (so that clients send it elsewhere), nothing is lost, and
    a stream that the client itself has reset in the same packet breaks nothing."""
    async with without_room(database_url) as running:
        client = RawClient()
        await client.connect(running.grpc_port)
        under_way = await client.send(framed(GOOD))
        await waiting(running, 1)
        stopping = asyncio.create_task(running.app.stop(20))
        await client.until(lambda: client.goaway == under_way)
        late = await client.send(framed(GOOD))
        assert (await client.answer(late)).reset == ErrorCodes.REFUSED_STREAM
        await client.open_and_reset()
        await give_room(running)
        assert (await client.answer(under_way)).headers["grpc-status"] == "0"
        assert await stopping == 0
        await client.until(lambda: client.closed)
        await client.close()
        assert running.count("ingestor_metrics_committed_total") == 6


async def test_streams_from_before_the_client_knows_are_served(database_url: str) -> None:
    """The first GOAWAY allows every stream; the one that counts comes when the client has read it, which its
    answer to the PING says."""
    async with gateway(database_url) as running:
        client = RawClient()
        await client.connect(running.grpc_port)
        client.answers_pings = False
        await client.answer(await client.send(framed(GOOD)))
        stopping = asyncio.create_task(running.app.stop(20))
        await client.until(lambda: client.goaway == 2**31 - 1)
        early = await client.send(framed(GOOD))
        assert (await client.answer(early)).headers["grpc-status"] == "0"
        await client.answer_pings()
        await client.until(lambda: client.goaway == early)
        assert await stopping == 0
        await client.until(lambda: client.closed)
        await client.close()
        assert running.count("ingestor_metrics_committed_total") == 2


async def test_what_a_client_sends_at_the_end_destroys_no_answers(database_url: str) -> None:
    """A client that reads late, and still sends, gets every answer, and the end of the connection in order: a
    socket that is closed with something unread in it is reset, and loses what the client has not read."""
    async with gateway(database_url) as running:
        client = RawClient()
        await client.connect(running.grpc_port)
        await client.answer(await client.send(framed(GOOD)))
        client.reading.clear()
        calls = [await client.send(framed(GOOD)) for _ in range(50)]
        while running.count("ingestor_metrics_received_total") < 51:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(running.app.stop(20))
        late = []
        for _ in range(30):
            await asyncio.sleep(0.01)
            late.append(await client.send(framed(GOOD)))
        client.reading.set()
        await client.until(lambda: client.closed)
        assert client.broken is None
        assert [client.answers[call].headers["grpc-status"] for call in calls] == ["0"] * 50
        assert await stopping == 0
        answered = sum(answer.headers.get("grpc-status") == "0" for answer in client.answers.values())
        assert running.count("ingestor_metrics_committed_total") == answered
        await client.close()


@pytest.mark.parametrize("agent", ["raw", "grpc-python-grpclib/0.4.9 (linux; cpython/3.11)"])
async def test_a_stream_in_the_packet_that_answers_the_ping_is_no_error(
    database_url: str, problems: list[str], agent: str
) -> None:
    """It is served or refused, whatever the client is, and the connection ends in order."""
    async with gateway(database_url) as running:
        client = RawClient()
        await client.connect(running.grpc_port)
        await client.answer(await client.send(framed(GOOD), headers={"user-agent": agent}))
        client.answers_pings = False
        stopping = asyncio.create_task(running.app.stop(20))
        await client.until(lambda: client.pinged)
        late = await client.answer_pings_and_send(framed(GOOD))
        assert await stopping == 0
        await client.until(lambda: client.closed)
        assert client.broken is None
        answer = client.answers[late]
        assert answer.headers.get("grpc-status") == "0" or answer.reset == ErrorCodes.REFUSED_STREAM
        await client.close()
    assert not problems


async def test_grpcio_under_load_sends_to_another_server_what_a_stopping_one_does_not_take(
    database_url: str,
) -> None:
    """No call fails, and each is stored once, although one of the two servers stops in the middle."""
    async with gateway(database_url) as first, gateway(database_url) as second:
        target = f"ipv4:{first.grpc_address},{second.grpc_address}"
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each channel
        channels = [grpc.aio.insecure_channel(target, options=own) for _ in range(4)]
        enough = asyncio.Event()
        answered = 0

        async def calls(channel: grpc.aio.Channel) -> None:
            nonlocal answered
            method: Any = channel.unary_unary(f"{SERVICE}/LogMetric")
            while not enough.is_set():
                await method(GOOD, wait_for_ready=True, timeout=30)
                answered += 1

        async def stop_first() -> None:
            while first.count("ingestor_metrics_received_total") < 200:
                await asyncio.sleep(0.01)
            assert await first.app.stop(20) == 0
            while second.count("ingestor_metrics_received_total") < 200:
                await asyncio.sleep(0.01)
            enough.set()

        try:
            await asyncio.gather(stop_first(), *(calls(channel) for channel in channels for _ in range(8)))
        finally:
            await asyncio.gather(*(channel.close() for channel in channels))
        assert await second.app.stop(20) == 0
        stored = [gateway.count("ingestor_metrics_committed_total") for gateway in (first, second)]
        assert min(stored) >= 200
        assert sum(stored) == answered


async def test_a_client_that_hangs_up_at_goaway_is_answered_first(database_url: str) -> None:
    """grpclib's client, and so betterproto2's, drops its calls when it reads GOAWAY: it gets none before they are
    answered, and what it sends meanwhile is refused."""
    async with without_room(database_url) as running:
        call = asyncio.create_task(running.stub.log_metric(LogMetricRequest("s", "m", 1.0)))
        await waiting(running, 1)
        stopping = asyncio.create_task(running.app.stop(20))
        with pytest.raises(StreamTerminatedError, match=r"error_code: (7|ErrorCodes.REFUSED_STREAM)"):
            while True:  # until the stop has got to it, calls wait for room as well
                with suppress(TimeoutError):
                    await asyncio.wait_for(running.stub.log_metric(LogMetricRequest("s", "m", 2.0)), 0.2)
        await give_room(running)
        assert (await call).success
        assert await stopping == 0
        assert running.count("ingestor_metrics_committed_total") == 6


async def test_a_silent_client_does_not_hold_up_the_stop(database_url: str) -> None:
    """An idle connection is closed after GOAWAY; stopping takes no longer for it."""
    async with gateway(database_url) as running:
        client, deaf = RawClient(), RawClient()
        for each in (client, deaf):
            await each.connect(running.grpc_port)
            await each.answer(await each.send(framed(GOOD)))
        deaf.reading.clear()
        await asyncio.wait_for(running.app.stop(20), 5)
        deaf.reading.set()
        for each in (client, deaf):
            await each.until(lambda each=each: each.closed)  # type: ignore[misc]
            await each.close()


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
