"""Connections that are ended for what their clients did are counted, once each and for the right reason, at the
ports of a whole gateway; those that end in order are not."""

from __future__ import annotations

import asyncio

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import PingFrame, WindowUpdateFrame
from ingestor_api.analytics.v1 import LogMetricResponse

from ingestor.transport.grpc import GrpcServer
from ingestor.transport.grpc import connections as grpc_connections
from ingestor.transport.grpc.floods import BURST
from ingestor.transport.grpc.keepalive import Patience
from ingestor.transport.http import connections as http_connections
from tests.gateway import Gateway, gateway
from tests.transport.grpc.kit import GOOD, connected, framed, give_room, messages, waiting, without_room
from tests.transport.grpc.test_floods import prepared
from tests.transport.http.kit import raw

COUNTER = "ingestor_connections_cut_off_total"
PAGE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def counted(running: Gateway) -> dict[tuple[str, str], float]:
    """How many were, by protocol and reason; nothing where there were none."""
    return {
        (sample.labels["protocol"], sample.labels["reason"]): sample.value
        for family in running.app.telemetry.registry.collect()
        for sample in family.samples
        if sample.name == COUNTER and sample.value
    }


async def test_connections_that_end_in_order_are_not_counted(database_url: str) -> None:
    """By their clients, or by the server when it stops."""
    async with gateway(database_url) as running:
        for _ in range(2):
            async with connected(running.grpc_port) as client:
                await client.answer(await client.send(framed(GOOD)))
            async with raw(running.http_port, PAGE) as over_http:
                assert (await over_http.answer())[0] == 200
        async with connected(running.grpc_port) as last:
            await last.answer(await last.send(framed(GOOD)))
            await running.app.stop(5)
            await last.until(lambda: last.closed)
        assert counted(running) == {}


async def test_who_does_not_answer_a_ping_is_silent(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a call behind it; who answers is not."""
    # No setting: how long is the same for everybody.
    defaults = GrpcServer.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "patience", Patience(idle_s=0.05, answer_s=0.2))
    async with (
        gateway(database_url) as running,
        connected(running.grpc_port) as answering,
        connected(running.grpc_port) as gone,
    ):
        gone.answers_pings = False
        await gone.answer(await gone.send(framed(GOOD)))
        await gone.until(lambda: gone.closed)
        assert gone.pinged
        assert not answering.closed
        assert counted(running) == {("grpc", "silent"): 1}


async def test_who_calls_nothing_is_idle(database_url: str) -> None:
    """Whether it has called before or not. Over HTTP it is a connection that was kept for nothing, and no more."""
    async with (
        gateway(database_url, connection_idle="1s") as running,
        connected(running.grpc_port) as new,
        connected(running.grpc_port) as used,
        raw(running.http_port, PAGE) as over_http,
    ):
        await over_http.answer()
        await used.answer(await used.send(framed(GOOD)))
        for client in (new, used):
            await client.until(lambda client=client: client.closed)  # type: ignore[misc] # can't infer it
        assert await over_http.rest() == b""
        assert counted(running) == {("grpc", "idle"): 2}


async def test_who_has_been_there_for_long_is_old(database_url: str) -> None:
    """Counted when it is told to go, once, however long its call then takes, which is answered. Over HTTP the
    answer says so, and that counts as nothing."""
    both = {("grpc", "age"): 2}  # that of the gateway's own client, too
    async with (
        without_room(database_url, connection_age_max="1s") as full,
        connected(full.grpc_port) as client,
        raw(full.http_port) as over_http,
    ):
        client.answers_pings = False  # so that it is looked at several times before the second GOAWAY
        call = await client.send(framed(GOOD))
        await waiting(full, 1)
        await client.until(lambda: len(client.goaways) == 2)
        assert counted(full) == both
        await give_room(full)
        [answer] = messages((await client.answer(call)).data)
        assert LogMetricResponse.parse(answer).success
        over_http.writer.write(PAGE)
        assert (await over_http.answer())[1]["Connection"] == "close"
        await client.until(lambda: client.closed)
        assert counted(full) == both


async def test_who_does_not_come_to_the_point_is_slow(database_url: str) -> None:
    """Over both protocols: without a word, or with half of one."""
    async with (
        gateway(database_url, header_timeout="100ms") as running,
        raw(running.grpc_port) as silent,
        raw(running.grpc_port, b"PRI * HTTP/2.0\r\n") as halting,
        raw(running.http_port) as silent_over_http,
        raw(running.http_port, PAGE[:10]) as halting_over_http,
    ):
        for client in (silent, halting, silent_over_http):
            await client.rest()
        assert (await halting_over_http.rest()).startswith(b"HTTP/1.0 408 ")
        assert counted(running) == {("grpc", "slow"): 2, ("http", "slow"): 2}


async def test_who_asks_for_nothing_floods(database_url: str) -> None:
    """Once, whatever it goes on to send."""
    async with gateway(database_url) as running, connected(running.grpc_port) as client:
        await client.send_bytes(prepared(client, 2 * BURST))
        await client.until(lambda: client.closed)
        await client.send_frame(*[PingFrame(0)] * BURST)
        async with connected(running.grpc_port) as other:  # that was read when this one is answered
            await other.answer(await other.send(framed(GOOD)))
        assert counted(running) == {("grpc", "flood"): 1}


async def test_who_breaks_the_protocol_reaches_no_bound(database_url: str) -> None:
    """So that is counted as nothing, though it ends the connection."""
    async with gateway(database_url) as running, connected(running.grpc_port) as client:
        await client.send_frame(WindowUpdateFrame(0, window_increment=2**31 - 1))
        await client.until(lambda: client.closed)
        assert client.goaway_codes == [ErrorCodes.FLOW_CONTROL_ERROR]
        assert counted(running) == {}


async def test_an_idle_one_that_makes_room_is_too_many(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over both protocols: it is ended, and who came is served."""
    for each in (grpc_connections, http_connections):
        monkeypatch.setattr(each, "_IDLE_LONG_S", 0.0)
    async with (
        gateway(database_url, connections_max=1) as running,
        connected(running.grpc_port) as first,
        raw(running.http_port, PAGE) as first_over_http,
    ):
        await first.answer(await first.send(framed(GOOD)))
        await first_over_http.answer()
        async with (
            connected(running.grpc_port) as second,
            raw(running.http_port, PAGE) as second_over_http,
        ):
            await second.answer(await second.send(framed(GOOD)))
            assert (await second_over_http.answer())[0] == 200
            await first.until(lambda: first.closed)
            assert await first_over_http.rest() == b""
            assert counted(running) == {("grpc", "too_many"): 1, ("http", "too_many"): 1}


async def test_one_more_than_there_is_room_for_is_too_many(database_url: str) -> None:
    """It is turned away; over both protocols."""
    async with (
        gateway(database_url, connections_max=1) as running,
        connected(running.grpc_port) as first,
        raw(running.http_port, PAGE) as first_over_http,
    ):
        await first.answer(await first.send(framed(GOOD)))
        await first_over_http.answer()
        async with raw(running.grpc_port) as second, raw(running.http_port) as second_over_http:
            await second.rest()
            assert (await second_over_http.rest()).startswith(b"HTTP/1.1 503 ")
        assert counted(running) == {("grpc", "too_many"): 1, ("http", "too_many"): 1}
        assert not first.closed
        first_over_http.writer.write(PAGE)
        assert (await asyncio.wait_for(first_over_http.answer(), 10))[0] == 200
