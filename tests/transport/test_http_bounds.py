"""HTTP requests that stand still, answers that are not read, connections that are silent, old or too many."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from ingestor.transport.bounds import Bounds
from ingestor.transport.http import Content
from ingestor.transport.share import Share
from tests.transport.http.kit import POST, raw, serving


@pytest.mark.parametrize(
    "begun",
    [
        POST + b"Content-Length: 100\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        POST + b"Content-Length: 100\r\n\r\n",
    ],
)
async def test_a_body_that_does_not_come_whole_is_408(begun: bytes) -> None:
    """And the connection ends with it."""
    async with (
        serving(share=Share(Bounds(request_timeout_s=0.2))) as (_, port),
        raw(port, begun) as client,
    ):
        status, headers, body = await client.answer()
        assert (status, headers["Connection"]) == (408, "close")
        assert "REQUEST_TIMEOUT" in json.loads(body)["message"]


@pytest.mark.parametrize("begun", [b"GET / HT", POST, POST + b"a: b"])
async def test_a_head_that_does_not_come_whole_is_408(begun: bytes) -> None:
    """Wherever it stops: as the first of a connection, and behind an answer."""
    whole = POST + b"Content-Length: 2\r\n\r\n{}"
    for before in (b"", whole):
        async with (
            serving(share=Share(Bounds(header_timeout_s=0.2))) as (_, port),
            raw(port, before) as client,
        ):
            if before:
                assert (await client.answer())[0] == 200
            client.writer.write(begun)
            assert (await client.answer())[0] == 408
            assert await client.rest() == b""


async def test_a_silent_connection_is_closed() -> None:
    """Without a word: there is nothing to answer. One that was answered may be silent for longer."""
    async with serving(share=Share(Bounds(header_timeout_s=0.2))) as (_, port):
        async with raw(port) as client:
            assert await client.rest() == b""
        async with raw(port, POST + b"Content-Length: 2\r\n\r\n{}") as client:
            await client.answer()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.rest(), 0.6)


@pytest.mark.parametrize("size", [4_000, 120_000])
async def test_heads_are_bounded_in_all(size: int) -> None:
    """431, which arrives although the client still sends."""
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(
        b"h-%d: %s\r\n" % (number, b"x" * (size - 100)) for number in range(30)
    )
    async with serving() as (_, port), raw(port, head + b"\r\n") as client:
        status, headers, body = await client.answer()
        assert (status, headers.get("Connection", "close")) == (431, "close")
        assert json.loads(body)["code"] == 8
        assert await client.rest() == b""


async def test_a_target_that_is_too_long_is_414() -> None:
    """By HTTP's own status for that."""
    async with serving() as (_, port), raw(port, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n") as client:
        assert (await client.answer())[0] == 414


async def test_bodies_that_stand_still_make_room_for_others() -> None:
    """429 for the one that came slowest."""
    head = POST + b"Content-Length: 1000\r\n\r\n"
    async with (
        serving(share=Share(Bounds(receive_bytes=1000))) as (_, port),
        raw(port, head + bytes(600)) as slow,
    ):
        await asyncio.sleep(0.05)
        async with raw(port, head + bytes(700)) as fast:
            status, headers, _ = await slow.answer()
            assert (status, headers["Retry-After"]) == (429, "1")
            fast.writer.write(b"0" * 300)
            assert (await fast.answer())[0] == 200


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """By time, and at once where all clients together leave too much unread."""

    async def page() -> Content:
        return Content(200, "text/plain", bytes(2**20))

    request = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n" * 40
    for bounds in (Bounds(send_timeout_s=0.3), Bounds(send_bytes=2**17)):
        async with serving({"/page": page}, share=Share(bounds)) as (server, port), raw(port, request):
            while not server._connections.connections:
                await asyncio.sleep(0.01)
            while server._connections.connections:
                await asyncio.sleep(0.01)


async def test_an_old_connection_ends_with_its_answer() -> None:
    """So that its client makes another one, elsewhere perhaps."""
    async with (
        serving(share=Share(Bounds(age_max_s=0.2))) as (_, port),
        raw(port, POST + b"Content-Length: 2\r\n\r\n{}") as client,
    ):
        assert "Connection" not in (await client.answer())[1]
        began_at = time.monotonic()
        while time.monotonic() - began_at < 0.3:
            await asyncio.sleep(0.05)
        client.writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
        assert (await client.answer())[1]["Connection"] == "close"


async def test_one_connection_more_is_503_or_takes_the_place_of_an_idle_one() -> None:
    """Said at once, before anything was asked."""
    whole = POST + b"Content-Length: 2\r\n\r\n{}"
    async with serving(share=Share(Bounds(connections_max=1))) as (_, port), raw(port, whole) as first:
        await first.answer()
        async with raw(port) as second:
            status, headers, body = await second.answer()
            assert (status, headers["Retry-After"]) == (503, "1")
            assert json.loads(body)["code"] == 14
        await asyncio.sleep(1.1)  # what counts as idle
        async with raw(port, whole) as third:
            assert (await third.answer())[0] == 200
        assert await first.rest() == b""


async def test_chunks_that_are_little_but_wrapping_are_413() -> None:
    """However little of a body is in them. Those of an ordinary size are as good as a body in one piece."""
    async with serving() as (_, port):
        chunk = b"1;" + b"x" * 8_000 + b"\r\n \r\n"
        async with raw(port, POST + b"Transfer-Encoding: chunked\r\n\r\n") as client:
            client.writer.write(chunk * 200)
            status, headers, body = await client.answer()
            assert (status, headers["Connection"]) == (413, "close")
            assert "chunks" in json.loads(body)["message"]
        usual = b"100\r\n" + b" " * 256 + b"\r\n"
        async with raw(port, POST + b"Transfer-Encoding: chunked\r\n\r\n") as client:
            client.writer.write(usual * 3 + b"2\r\n{}\r\n0\r\n\r\n")
            assert (await client.answer())[0] == 200
