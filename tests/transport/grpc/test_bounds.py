"""Requests that stand still, answers that are not read, connections that are silent, old or too many."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import suppress

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, PingFrame

from ingestor.access import Gate, Keys
from ingestor.permissions import NEEDS
from ingestor.transport.bounds import Bounds
from ingestor.transport.grpc import HealthService, connections
from tests.access.kit import make
from tests.transport.grpc.kit import connected, framed, listening, serving, unary_rpc
from tests.transport.grpc.raw_h2 import RawClient
from tests.transport.grpc.test_health import CHECK, WATCH
from tests.transport.grpc.test_lane import lane_only


async def echo(body: bytes) -> bytes:
    return body


async def test_a_request_that_does_not_come_whole_is_given_up() -> None:
    """DEADLINE_EXCEEDED without any deadline of the client's; its connection goes on."""
    async with serving(echo, Bounds(request_timeout_s=0.2)) as client:
        for begun in (b"", framed(b"x")[:3], framed(b"xyz")[:6]):
            answer = await client.answer(await client.send(begun, end=False))
            assert answer.headers["grpc-status"] == "4"
            assert "REQUEST_TIMEOUT" in answer.headers["grpc-message"]
        assert (await client.answer(await client.send(framed(b"x")))).data == framed(b"x")


async def test_those_that_came_slowest_make_room_for_others() -> None:
    """Half of the bytes on one connection, all of them together; who is refused is told to try again."""
    async with (
        listening([unary_rpc(echo)], Bounds(receive_bytes=4 * 2**19)) as (_, port),
        connected(port) as one,
        connected(port) as other,
    ):
        await takes_all(one)
        half = framed(bytes(500_000), length=600_000)
        slow = await begin(one, half)
        fast = await begin(one, half)
        await begin(one, half)
        assert (await one.answer(slow)).headers["grpc-status"] == "8"
        assert "RECEIVE_BYTES" in one.answers[slow].headers["grpc-message"]
        for _ in range(9):
            await one.send_more(fast, bytes(10_000), end=False)
        await one.send_more(fast, bytes(10_000))
        assert len((await one.answer(fast)).data) == 600_005
        for _ in range(4):
            await begin(other, half)
        assert (await other.answer(await other.send(framed(b"x")))).data == framed(b"x")
        assert (await one.answer(await one.send(framed(b"x")))).data == framed(b"x")


async def takes_all(client: RawClient) -> None:
    """Gives the server windows for whatever it may answer."""
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
    client.h2.increment_flow_control_window(2**30)
    await client.flush()


async def begin(client: RawClient, half: bytes) -> int:
    """Sends the beginning of a large request, as the windows allow it."""
    stream = await client.send(half[:100], end=False)
    for at in range(100, len(half), 16_384):
        piece = half[at : at + 16_384]
        await client.until(
            lambda piece=piece: (  # type: ignore[misc]
                client.answers[stream].ended or client.h2.local_flow_control_window(stream) >= len(piece)
            )
        )
        if client.answers[stream].ended:
            break
        await client.send_more(stream, piece, end=False)
    return stream


async def test_an_answer_that_is_not_read_is_given_up() -> None:
    """The client credits nothing: its call is reset, and others on its connection are answered."""

    async def large(body: bytes) -> bytes:
        return bytes(100_000) if body else b""

    async with serving(large, Bounds(send_timeout_s=0.3)) as client:
        stream = await client.send(framed(b"x"))
        assert (await client.answer(stream)).reset == ErrorCodes.CANCEL
        client.h2.increment_flow_control_window(2**20)
        await client.flush()
        assert (await client.answer(await client.send(framed(b"")))).data == framed(b"")


async def test_a_client_that_does_not_read_is_not_read_from_and_then_cut_off() -> None:
    """So that what it asks for does not pile up here."""
    served = 0

    async def large(body: bytes) -> bytes:
        nonlocal served
        served += 1
        return bytes(2**20)

    async with (
        listening([unary_rpc(large)], Bounds(send_timeout_s=0.5)) as (server, port),
        connected(port) as client,
    ):
        await takes_all(client)
        await client.answer(await client.send(framed(b"x")))
        client.reading.clear()
        for _ in range(40):
            await client.send(framed(b"x"))
        assert server._server is not None
        [connection] = server._server.connections
        while connection.connection.write_ready.is_set():
            await asyncio.sleep(0.01)
        with suppress(OSError):
            for _ in range(20):  # a flood, were it read
                await client.send_frame(*[PingFrame(0, b"12345678")] * 1000)
        while server._server.connections:
            await asyncio.sleep(0.01)
        client.reading.set()
        await client.until(lambda: client.closed)
        assert client.goaway is None


@lane_only
async def test_what_all_clients_leave_unread_is_bounded() -> None:
    """Who stopped reading first is cut off when there is too much, whatever time it has left."""

    async def large(body: bytes) -> bytes:
        return bytes(2**23)

    async with listening([unary_rpc(large)], Bounds(send_bytes=12 * 2**20)) as (_, port):
        clients = []
        for _ in range(3):
            client = RawClient()
            await client.connect(port)
            clients.append(client)
            await takes_all(client)
            client.reading.clear()
            for _ in range(3):
                await client.send(framed(b"x"))
        first, *_ = clients
        first.reading.set()
        await first.until(lambda: first.closed)
        for client in clients:
            await client.close()


async def test_answers_that_windows_hold_up_are_bounded() -> None:
    """A client that credits nothing, but does read: what it was answered first is given up when there is too much,
    whatever time it has left, and what is left it can still have."""

    async def large(body: bytes) -> bytes:
        return body * 2**18

    async with serving(large, Bounds(send_bytes=5 * 2**20)) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await client.flush()
        calls = [await client.send(framed(b"1234"))]
        await client.until(lambda: bool(client.answers[calls[0]].headers))
        calls += [await client.send(framed(b"1234")) for _ in range(3)]
        for given_up in calls[:2]:
            assert (await client.answer(given_up)).reset == ErrorCodes.CANCEL
        client.h2.increment_flow_control_window(2**22)
        for kept in calls[2:]:
            client.h2.increment_flow_control_window(2**21, kept)
        await client.flush()
        for kept in calls[2:]:
            assert len((await client.answer(kept)).data) == 2**20 + 5


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"])
async def test_a_connection_that_does_not_begin_is_closed(said: bytes) -> None:
    """Before the preface, within it, and behind it."""
    async with listening([unary_rpc(echo)], Bounds(header_timeout_s=0.2)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        await asyncio.wait_for(reader.read(), 10)
        writer.close()


@pytest.mark.parametrize("bounds", [Bounds(idle_s=0.3), Bounds(age_max_s=0.3)], ids=["idle", "old"])
async def test_connections_that_are_idle_or_old_are_sent_away_in_order(bounds: Bounds) -> None:
    """GOAWAY without an error, and none of their calls is lost."""
    async with serving(echo, bounds) as client:
        await client.answer(await client.send(framed(b"x")))
        await client.until(lambda: client.closed)
        assert set(client.goaway_codes) == {ErrorCodes.NO_ERROR}
        assert client.broken is None


async def test_one_connection_more_takes_the_place_of_an_idle_one() -> None:
    """Of one that has called nothing for a while; where all are busy or new, the newcomer is turned away."""
    go_on = asyncio.Event()

    async def method(body: bytes) -> bytes:
        await go_on.wait()
        return body

    async with (
        listening([unary_rpc(method)], Bounds(connections_max=2)) as (_, port),
        connected(port) as busy,
        connected(port) as idle,
    ):
        call = await busy.send(framed(b"x"))
        await idle.until(lambda: idle.h2.remote_settings.initial_window_size > 2**16)
        refused = RawClient()
        await refused.connect(port)
        await refused.until(lambda: refused.closed)
        assert refused.h2.remote_settings.initial_window_size < 2**16
        await refused.close()
        await asyncio.sleep(1.1)  # what counts as idle
        async with connected(port) as another:
            await idle.until(lambda: idle.closed)
            go_on.set()
            assert (await another.answer(await another.send(framed(b"y")))).data == framed(b"y")
            assert (await busy.answer(call)).data == framed(b"x")


async def test_who_has_shown_a_key_is_not_locked_out_by_those_who_need_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections that hold a Watch, or a Check that does not come whole, make room, the oldest first; one on which
    a key was shown stays, also while all that it does is to watch."""
    monkeypatch.setattr(connections, "_IDLE_LONG_S", 0.0)
    key, text = make("write")
    sent = {"x-api-key": text}

    async def serving() -> bool:
        return True

    rpcs = [unary_rpc(echo), *HealthService(serving, []).rpcs()]
    async with (
        listening(rpcs, Bounds(connections_max=3), gate=Gate(NEEDS, Keys([key]))) as (_, port),
        connected(port) as known,
        connected(port) as watching,
        connected(port) as checking,
    ):
        assert (await known.answer(await known.send(framed(b"x"), headers=sent))).data == framed(b"x")
        for client in (known, watching):
            watch = await client.send(framed(b""), path=WATCH)
            await client.until(lambda c=client, w=watch: bool(c.answers[w].data))  # type: ignore[misc]
        await checking.send(b"", path=CHECK, end=False)
        async with connected(port) as first, connected(port) as second:
            for client in (first, second):
                answer = await client.answer(await client.send(framed(b"y"), headers=sent))
                assert answer.data == framed(b"y")
            await watching.until(lambda: watching.closed)
            await checking.until(lambda: checking.closed)
        assert not known.closed


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_messages_in_gzip(size: int) -> None:
    """As clients send them that are told to compress; the same in the lane and beside it."""
    async with serving(echo) as client:
        body = gzip.compress(bytes(size))
        call = await client.send(framed(body, compressed=1), headers={"grpc-encoding": "gzip"})
        client.h2.increment_flow_control_window(2**20)
        client.h2.increment_flow_control_window(2**20, call)
        await client.flush()
        assert (await client.answer(call)).data == framed(bytes(size))


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (gzip.compress(bytes(2**20 + 1)), "8", "MESSAGE_BYTES_MAX"),
        (gzip.compress(b"cut")[:-1], "3", "ended before its end"),
        (b"no gzip", "3", "not gzip"),
        (gzip.compress(b"x") + b"y", "3", "follows"),
    ],
    ids=["large", "cut", "none", "more"],
)
async def test_gzip_that_is_wrong_or_too_large(body: bytes, code: str, text: str) -> None:
    """By the table of statuses, never UNKNOWN."""
    async with serving(echo) as client:
        call = await client.send(framed(body, compressed=1), headers={"grpc-encoding": "gzip"})
        answer = await client.answer(call)
        assert answer.headers["grpc-status"] == code
        assert text in answer.headers["grpc-message"]


@lane_only
async def test_a_large_message_gets_a_window_of_its_size() -> None:
    """Once its prefix has come: it does not take one round trip for each quarter of a mebibyte."""
    async with serving(echo) as client:
        await client.answer(await client.send(framed(b"x")))
        client.h2.increment_flow_control_window(2**20)
        await client.flush()
        stream = await client.send(framed(b"", length=2**20), end=False)
        await client.send_frame(DataFrame(stream, b""))
        await client.until(lambda: client.h2.streams[stream].outbound_flow_control_window >= 2**20)
