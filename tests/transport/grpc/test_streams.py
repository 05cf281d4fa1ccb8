"""Calls that stream: order, flow control, deadlines, failures, and clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status as RpcStatus
from grpclib.health.v1.health_pb2 import HealthCheckRequest
from h2.settings import SettingCodes
from ingestor_api.analytics.v1 import LogMetricsRequest, LogMetricsResponse, Metric

from ingestor.service.in_hand import InHand
from tests.gateway import Gateway, gateway
from tests.transport.grpc.kit import (
    SERVICE,
    connected,
    framed,
    give_room,
    listening,
    messages,
    without_room,
)
from tests.transport.grpc.raw_h2 import RawClient
from tests.transport.streaming_kit import ADD, COUNT, ECHO, Numbers, number, value_of

STREAM = f"{SERVICE}/StreamMetrics"
GOOD, BAD = Metric("s", "m", 1.0), Metric("s", "m")


def batch(*metrics: Metric) -> bytes:
    return bytes(LogMetricsRequest(list(metrics)))


def accepted(answer: bytes) -> int:
    return LogMetricsResponse.parse(answer).accepted


async def answers_and_error(call: Any) -> tuple[list[int], grpc.StatusCode, bytes]:
    """What grpcio's call was answered, and how it ended."""
    answers = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for answer in call:
            answers.append(accepted(answer))  # noqa: PERF401 - what came before the error counts
    metadata: Any = dict(caught.value.trailing_metadata() or ())
    return answers, caught.value.code(), metadata.get("grpc-status-details-bin", b"")


async def test_a_thousand_requests_are_answered_in_order(running: Gateway) -> None:
    """An answer for each, as LogMetrics gives it, to a client that sends as fast as it can."""
    sizes = [1 + each % 3 for each in range(1_000)]

    async def requests() -> AsyncIterator[bytes]:
        for size in sizes:
            yield batch(*[GOOD] * size, BAD)

    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        method: Any = channel.stream_stream(STREAM)
        answers = [LogMetricsResponse.parse(answer) async for answer in method(requests())]
    assert [answer.accepted for answer in answers] == sizes
    assert [[each.index for each in answer.rejected] for answer in answers] == [[size] for size in sizes]
    assert running.count("ingestor_metrics_received_total") == sum(sizes) + len(sizes)


async def test_the_generated_stub_streams(running: Gateway) -> None:
    """An answer comes before the next request is sent; no request at all is no answer and no error."""
    requests = asyncio.Queue[LogMetricsRequest | None]()

    async def sent() -> AsyncIterator[LogMetricsRequest]:
        while (request := await requests.get()) is not None:
            yield request

    answers = running.stub.stream_metrics(sent())
    for size in (1, 2, 3):
        requests.put_nowait(LogMetricsRequest([GOOD] * size))
        assert (await anext(answers)).accepted == size
    requests.put_nowait(None)
    assert [answer async for answer in answers] == []
    assert [answer async for answer in running.stub.stream_metrics([])] == []


@pytest.mark.parametrize("bad", [b"", batch(BAD), b"\xff", batch(GOOD)[:-1]])
async def test_a_bad_request_ends_the_stream_after_the_answers_before_it(
    running: Gateway, bad: bytes
) -> None:
    """With its own status; what comes behind it is not taken."""
    requests = [batch(GOOD), batch(GOOD, GOOD), bad, batch(GOOD)]
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        method: Any = channel.stream_stream(STREAM)
        answers, code, details = await answers_and_error(method(requests))
    assert (answers, code) == ([1, 2], grpc.StatusCode.INVALID_ARGUMENT)
    assert running.count("ingestor_metrics_pending") + running.count("ingestor_metrics_committed_total") == 3
    if bad == b"":
        bad_request = BadRequest()
        assert RpcStatus.FromString(details).details[0].Unpack(bad_request)
        assert bad_request.field_violations[0].field == "metrics"


async def test_requests_too_large_or_cut_end_the_stream(raw: RawClient) -> None:
    """At the prefix, before it is buffered; and half a message is none."""
    for tail, status in ((framed(b"x", length=2**30), "8"), (framed(batch(GOOD))[:-1], "3")):
        answer = await raw.answer(await raw.send(framed(batch(GOOD)) + tail, path=STREAM))
        assert answer.headers["grpc-status"] == status
        assert [accepted(each) for each in messages(answer.data)] == [1]


async def test_who_does_not_read_its_answers_is_not_read(running: Gateway) -> None:
    """Its window takes ten answers; no more requests are taken than that, until it grows. Other calls on the same
    connection go on."""
    async with connected(running.grpc_port) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10 * len(framed(b"\x08\x01"))})
        stream = await client.send(framed(batch(GOOD)) * 500, path=STREAM)
        while running.count("ingestor_metrics_received_total") < 10:
            await asyncio.sleep(0.01)
        for _ in range(20):
            other = await client.answer(await client.send(b"", path=STREAM))
            assert other.headers["grpc-status"] == "0"
        assert running.count("ingestor_metrics_received_total") <= 12
        client.h2.increment_flow_control_window(2**20, stream)
        await client.flush()
        assert len(messages((await client.answer(stream)).data)) == 500
    assert running.count("ingestor_metrics_received_total") == 500


async def test_a_full_server_pushes_back_and_refuses_nothing(database_url: str) -> None:
    """The client's window is not given back while there is no room, so what lies here is bounded by it; other
    streams of its connection go on; and with room, all is taken."""
    async with (
        without_room(database_url, admission_wait="0", queue_capacity=50_000, batch_size=50_000) as full,
        connected(full.grpc_port) as client,
    ):
        await full.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 0.0)] * 49_990))
        await client.until(lambda: client.h2.remote_settings.initial_window_size > 2**17)
        request = framed(batch(*[Metric("s" * 250, "m" * 250, 1.0)] * 20))
        stream = await client.send(request, path=STREAM, end=False)
        sent = 1
        while client.h2.local_flow_control_window(stream) >= len(request):
            size, frame = len(request), client.h2.max_outbound_frame_size
            for at in range(0, size, frame):
                client.h2.send_data(stream, request[at : at + frame])
            await client.flush()
            sent += 1
        await client.until(lambda: client.h2.outbound_flow_control_window > 2**20)
        large = HealthCheckRequest(service="x" * 15_000).SerializeToString()
        other = await client.answer(await client.send(framed(large), path="/grpc.health.v1.Health/Check"))
        assert other.headers["grpc-status"] == "5"
        assert client.h2.local_flow_control_window(stream) < len(request)
        assert 2**18 - len(request) < sent * len(request) < 2**18 + 2 * len(request)
        assert full.count("ingestor_metrics_received_total") == 49_995
        assert full.count("ingestor_metrics_refused_total") == 0
        await give_room(full)
        await client.send_more(stream)
        answer = await client.answer(stream)
        assert answer.headers["grpc-status"] == "0"
        assert [accepted(each) for each in messages(answer.data)] == [20] * sent


async def test_a_stream_holds_nobody_else_up() -> None:
    """Not even one whose requests are all there, and whose method never waits."""
    numbers = Numbers()
    async with listening(numbers.rpcs()) as (_, port), connected(port) as client:
        stream = await client.send(framed(number(1)) * 2_000, path=ECHO)
        turns = 0
        while not client.answers[stream].ended:
            await asyncio.sleep(0)
            turns += len(numbers.seen) > 0
            if len(numbers.seen) == 2_000:
                break
    assert turns > 1_000


@pytest.mark.parametrize(
    ("path", "sent", "answers"),
    [(COUNT, [3], [0, 1, 2]), (ADD, [1, 2, 3], [6]), (ADD, [], [0]), (ECHO, [4, 5], [4, 5])],
)
async def test_every_kind_of_stream(path: str, sent: list[int], answers: list[int]) -> None:
    """Over grpcio."""
    async with (
        listening(Numbers().rpcs()) as (_, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        method: Any = channel.stream_stream(path)
        call = method([number(each) for each in sent])
        assert [value_of(answer) async for answer in call] == answers


@pytest.mark.parametrize("body", [b"", framed(number(1)) * 2])
async def test_a_server_stream_takes_one_request(body: bytes) -> None:
    """None and two are INVALID_ARGUMENT."""
    numbers = Numbers()
    async with listening(numbers.rpcs()) as (_, port), connected(port) as client:
        answer = await client.answer(await client.send(body, path=COUNT))
    assert answer.headers["grpc-status"] == "3"
    assert numbers.seen == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (ECHO, framed(number(1))),  # waits for a request
        (ECHO, framed(number(1)) + framed(number(2))[:-1]),  # in the middle of one
        (COUNT, framed(number(-2))),  # has nothing more to say
        (COUNT, framed(number(100_000))),  # waits for a client that doesn't read
    ],
)
@pytest.mark.parametrize("how", ["reset", "lost", "deadline"])
async def test_the_method_ends_with_its_call(problems: list[str], path: str, body: bytes, how: str) -> None:
    """Wherever it is: when the client resets the stream, is gone, or its time is over, the generator is closed."""
    numbers = Numbers()
    async with listening(numbers.rpcs()) as (_, port), connected(port) as client:
        headers = {"grpc-timeout": "200m"} if how == "deadline" else {}
        stream = await client.send(body, path=path, end=path == COUNT, headers=headers)
        answer = client.answers[stream]
        await client.until(lambda: bool(messages(answer.data)))
        if how == "reset":
            await client.reset(stream)
        elif how == "lost":
            await client.close()
        else:
            await client.answer(stream)
            assert answer.headers["grpc-status"] == "4"
        await asyncio.wait_for(numbers.ended.wait(), 5)
    assert not problems


async def test_a_request_that_is_never_finished_ends_at_the_deadline(
    raw: RawClient, running: Gateway
) -> None:
    """The answers before it stand."""
    body = framed(batch(GOOD)) + framed(batch(GOOD))[:-1]
    stream = await raw.send(body, path=STREAM, end=False, headers={"grpc-timeout": "300m"})
    answer = await raw.answer(stream)
    assert answer.headers["grpc-status"] == "4"
    assert [accepted(each) for each in messages(answer.data)] == [1]
    assert running.count("ingestor_metrics_received_total") == 1


async def test_a_bug_in_a_stream_is_an_error_with_its_traceback(problems: list[str]) -> None:
    """INTERNAL after the answers before it."""

    class Buggy(Numbers):
        async def echo(self, requests: AsyncIterator[Any]) -> Any:
            async for request in requests:
                yield request
                raise KeyError(request)

    async with listening(Buggy().rpcs()) as (_, port), connected(port) as client:
        answer = await client.answer(await client.send(framed(number(1)), path=ECHO))
    assert answer.headers["grpc-status"] == "13"
    assert [value_of(each) for each in messages(answer.data)] == [1]
    assert len(problems) == 1


@pytest.mark.parametrize("asked", ["idle", "half a request", "from a generated stub"])
async def test_an_idle_stream_does_not_hold_up_the_stop(
    database_url: str, problems: list[str], asked: str
) -> None:
    """It ends with UNAVAILABLE at once; what was answered before is stored."""
    async with gateway(database_url) as running:
        client = RawClient()
        await client.connect(running.grpc_port)
        agent = "grpc-python-grpclib/0.4.9" if asked == "from a generated stub" else "raw"
        stream = await client.send(framed(batch(GOOD)), path=STREAM, end=False, headers={"user-agent": agent})
        await client.until(lambda: bool(client.answers[stream].data))
        if asked == "half a request":
            await client.send_more(stream, framed(batch(GOOD))[:-1], end=False)
        assert await asyncio.wait_for(running.app.stop(20), 5) == 0
        answer = await client.answer(stream)
        assert answer.headers["grpc-status"] == "14"
        assert "grpc-status-details-bin" in answer.headers  # RetryInfo
        assert running.count("ingestor_metrics_committed_total") == 1
        await client.close()
    assert not problems


@pytest.mark.parametrize("count", [-2, 100_000])
async def test_a_server_stream_does_not_hold_up_the_stop(count: int) -> None:
    """Whether it has nothing to say, or a client that doesn't read."""
    numbers = Numbers()
    async with listening(numbers.rpcs()) as (server, port), connected(port) as client:
        stream = await client.send(framed(number(count)), path=COUNT)
        answer = client.answers[stream]
        await client.until(lambda: len(messages(answer.data)) >= 2)
        assert await asyncio.wait_for(server.drain(20), 5)
        assert (await client.answer(stream)).headers["grpc-status"] == "14"
        assert numbers.ended.is_set()


async def test_what_waits_in_streams_is_bounded(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waits for room, the second is refused as calls are, and nothing of it taken; with room there is no
    trace of it."""
    monkeypatch.setattr("ingestor.service.waiting.InHand", lambda: InHand(15_000))
    request = framed(batch(*[Metric("s" * 250, "m" * 250, 1.0)] * 20))
    async with (
        without_room(database_url, admission_wait="0", queue_capacity=50, batch_size=50) as full,
        connected(full.grpc_port) as client,
    ):
        await full.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 0.0)] * 40))
        first, second = [await client.send(request, path=STREAM) for _ in range(2)]
        refused = await client.answer(second)
        assert (refused.headers["grpc-status"], refused.data) == ("8", b"")
        assert full.count("ingestor_metrics_refused_total") == 20
        await give_room(full)
        answer = await client.answer(first)
        assert [accepted(each) for each in messages(answer.data)] == [20]
        assert full.count("ingestor_metrics_received_total") == 65


async def test_the_request_in_hand_is_answered_before_the_stop(database_url: str) -> None:
    """And none behind it is taken, though it has arrived."""
    async with without_room(database_url) as full, connected(full.grpc_port) as client:
        stream = await client.send(framed(batch(GOOD)) * 3, path=STREAM, end=False)
        while full.count("ingestor_queue_waiting_requests") < 1:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(full.app.stop(20))
        await client.until(lambda: client.goaway is not None)
        await give_room(full)
        answer = await client.answer(stream)
        assert answer.headers["grpc-status"] == "14"
        assert [accepted(each) for each in messages(answer.data)] == [1]
        assert await stopping == 0
        assert full.count("ingestor_metrics_committed_total") == 6


async def test_a_request_without_room_is_not_taken_at_the_end(database_url: str) -> None:
    """It waits until the time of the stop is over, and is cut off then; nobody was told that it was taken."""
    async with without_room(database_url) as full, connected(full.grpc_port) as client:
        stream = await client.send(framed(batch(GOOD)), path=STREAM, end=False)
        while full.count("ingestor_queue_waiting_requests") < 1:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(full.app.stop(1), 10)
        await client.until(lambda: client.closed)
        assert messages(client.answers[stream].data) == []
        assert full.count("ingestor_metrics_received_total") == 5


async def test_a_stream_that_comes_after_the_stop_began_takes_nothing(database_url: str) -> None:
    """As those do that a client opens before it has read the GOAWAY."""
    async with gateway(database_url) as running, connected(running.grpc_port) as client:
        await client.answer(await client.send(b"", path=STREAM))
        client.answers_pings = False
        stopping = asyncio.create_task(running.app.stop(20))
        await client.until(lambda: client.goaway is not None)
        answer = await client.answer(await client.send(framed(batch(GOOD)), path=STREAM))
        assert (answer.headers["grpc-status"], answer.data) == ("14", b"")
        await client.answer_pings()
        assert await stopping == 0
        assert running.count("ingestor_metrics_received_total") == 0


async def test_unary_calls_go_on_beside_open_streams(raw: RawClient) -> None:
    """On one connection, which the lane and grpclib's way share: in turns, and with both waiting at once."""
    stream = await raw.send(framed(batch(GOOD)), path=STREAM, end=False)
    for size in range(1, 50):
        calls = [await raw.send(framed(batch(GOOD)), path=f"{SERVICE}/LogMetrics") for _ in range(5)]
        await raw.send_more(stream, framed(batch(GOOD)), end=False)
        answers = [await raw.answer(call) for call in calls]
        assert {answer.headers["grpc-status"] for answer in answers} == {"0"}
        await raw.until(lambda size=size: len(messages(raw.answers[stream].data)) == size + 1)  # type: ignore[misc]
    await raw.send_more(stream)
    assert (await raw.answer(stream)).headers["grpc-status"] == "0"


async def test_a_stream_that_ends_first_is_taken_off_its_client() -> None:
    """A method may end before its client does; the stream is reset then, and what still comes goes nowhere."""

    class Brief(Numbers):
        async def echo(self, requests: AsyncIterator[Any]) -> Any:
            yield await anext(requests)

    async with listening(Brief().rpcs()) as (_, port), connected(port) as client:
        stream = await client.send(framed(number(1)), path=ECHO, end=False)
        answer = client.answers[stream]
        await client.until(lambda: answer.reset is not None)
        assert answer.headers["grpc-status"] == "0"
        again = await client.answer(await client.send(framed(number(1)), path=ECHO))
        assert again.headers["grpc-status"] == "0"
