"""Peers that are gone without a word are noticed, and no others are taken for gone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from ingestor.transport.grpc.keepalive import Patience, Step, Watch
from tests.stalling_proxy import stalling_port
from tests.transport.grpc.kit import connected, framed, listening, messages
from tests.transport.grpc.raw_h2 import LOG_METRIC
from tests.transport.streaming_kit import ECHO, Numbers, number, value_of

SHORT = Patience(idle_s=0.05, answer_s=1.0)
SHORTEST = Patience(idle_s=0.05, answer_s=0.1)


async def test_a_stream_of_a_peer_that_vanished_ends() -> None:
    """Its packets are swallowed, no FIN comes: the method is ended, and the connection is gone."""
    numbers = Numbers()
    async with (
        listening(numbers.rpcs(), patience=SHORTEST) as (server, port),
        stalling_port(port) as (through, proxy),
        connected(through) as client,
    ):
        stream = await client.send(framed(number(1)), path=ECHO, end=False)
        await client.until(lambda: bool(messages(client.answers[stream].data)))
        proxy.flowing.clear()
        await asyncio.wait_for(numbers.ended.wait(), 10)
        assert server.in_flight == 0
        proxy.flowing.set()
        await client.until(lambda: client.closed)


async def test_a_peer_that_answers_stays() -> None:
    """However long it has nothing else to say."""
    numbers = Numbers()
    async with listening(numbers.rpcs(), patience=SHORT) as (_, port), connected(port) as client:
        client.answers_pings = False
        stream = await client.send(framed(number(1)), path=ECHO, end=False)
        for _ in range(2):
            await client.until(lambda: client.pinged)
            await client.answer_pings_so_far()
        await client.answer_pings()
        await client.send_more(stream, framed(number(2)))
        answer = await client.answer(stream)
        assert [value_of(each) for each in messages(answer.data)] == [1, 2]
        assert not client.closed


async def test_calls_are_signs_of_life() -> None:
    """Unary ones too, which the lane takes: a client that makes them need not answer as well."""

    async def echo(body: bytes) -> bytes:
        return body

    rpc: Any = SimpleNamespace(path=LOG_METRIC, serve=echo, streams=False)
    async with listening([rpc], patience=SHORT) as (_, port), connected(port) as client:
        client.answers_pings = False
        for pings in (1, 2):
            # Not before the call before was heard: it waits for an answer meanwhile, and asks nothing.
            await client.until(lambda pings=pings: client.pings == pings)  # type: ignore[misc] # can't infer it
            answer = await client.answer(await client.send(framed(b"x")))
            assert messages(answer.data) == [b"x"]


async def test_silence_without_a_call_ends_too() -> None:
    """Who vanished between two calls holds a connection as well."""
    numbers = Numbers()
    async with listening(numbers.rpcs(), patience=SHORTEST) as (_, port), connected(port) as client:
        client.answers_pings = False
        await client.until(lambda: client.closed)
        assert client.pinged


def test_when_it_asks_and_when_it_gives_up() -> None:
    """After the idle time, counted from the last sign of life; a sign of life after the question is an answer."""
    watch = Watch(Patience(idle_s=60, answer_s=20), 0.0)
    assert watch.look(0.0) == (Step.WAIT, 60.0)
    watch.heard_at = 50.0
    assert watch.look(60.0) == (Step.WAIT, 110.0)
    assert watch.look(110.0) == (Step.ASK, 130.0)
    watch.heard_at = 111.0
    assert watch.look(130.0) == (Step.WAIT, 171.0)
    assert watch.look(171.0) == (Step.ASK, 191.0)
    assert watch.look(190.9) == (Step.WAIT, 191.0)
    assert watch.look(191.0) == (Step.END, 191.0)


def test_a_process_that_was_stopped_asks_again() -> None:
    """Its timer comes late, and what the peer said meanwhile may not have been read."""
    watch = Watch(Patience(idle_s=60, answer_s=20), 0.0)
    assert watch.look(60.0) == (Step.ASK, 80.0)
    assert watch.look(500.0) == (Step.ASK, 520.0)
    assert watch.look(520.0) == (Step.END, 520.0)
