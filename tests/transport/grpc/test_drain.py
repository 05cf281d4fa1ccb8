"""How connections end when the server stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from grpclib.exceptions import StreamTerminatedError
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
)

from ingestor.errors import Invalid
from tests.gateway import gateway
from tests.transport.grpc.kit import (
    GOOD,
    SERVICE,
    connected,
    framed,
    give_room,
    listening,
    unary_rpc,
    waiting,
    without_room,
)
from tests.transport.grpc.raw_h2 import LOG_METRIC, RawClient


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


async def test_the_connection_ends_behind_an_answer_that_left_at_once() -> None:
    """A refusal does that when it is first to tell of a change of the client's table: nothing of it is left for the
    turn's end, where the drain hears of calls that ended."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def method(body: bytes) -> bytes:
        asked.set()
        await go_on.wait()
        raise Invalid("bad")

    async with listening([unary_rpc(method)]) as (server, port), connected(port) as client:
        call = await client.send(framed(b"x"))
        await asked.wait()
        client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 64})
        await client.flush()
        draining = asyncio.create_task(server.drain(30))
        await client.until(lambda: client.goaway == call)
        go_on.set()
        assert (await client.answer(call)).headers["grpc-status"] == "3"
        assert await asyncio.wait_for(draining, 5)


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
