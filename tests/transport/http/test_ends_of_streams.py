"""How streams over HTTP end: by deadlines, clients that leave or do not read, methods that fail, and a stop."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from loguru import logger

from ingestor.transport.observing import CANCELLED
from tests.transport.http.streams_kit import ECHO_HEAD, Served, chunk, connected, line_of, lines_of
from tests.transport.streaming_kit import COUNT, ECHO


async def test_a_client_that_does_not_read_holds_up_the_method(served: Served) -> None:
    """What is not taken off our hands is not made: memory is bounded, whatever the method could say."""
    async with connected(served.port) as (reader, writer):
        writer.write(b"GET /v1/numbers/100000000:count HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        await asyncio.sleep(0.5)
        assert not served.numbers.ended.is_set()
        writer.transport.abort()
        await asyncio.wait_for(served.numbers.ended.wait(), 5)
    async with asyncio.timeout(5):
        while not served.codes:
            await asyncio.sleep(0.01)
    assert served.codes == [(COUNT, CANCELLED)]


async def test_a_client_that_goes_away_ends_the_method(served: Served) -> None:
    """Also while it waits for nothing but its next line."""
    async with connected(served.port) as (reader, writer):
        writer.write(ECHO_HEAD + chunk(b"{}\n"))
        await asyncio.wait_for(reader.readuntil(b"\n\r\n"), 5)
        writer.transport.abort()
        await asyncio.wait_for(served.numbers.ended.wait(), 5)


async def test_a_client_that_goes_away_while_its_line_is_made_is_cancelled(served: Served) -> None:
    """Though nothing but the line finds out."""

    class Losing(list[int]):
        def append(self, value: int) -> None:
            for connection in served.server._connections.looked_after():
                assert connection.transport is not None
                connection.transport.abort()
            super().append(value)

    served.numbers.seen = Losing()
    async with connected(served.port) as (reader, writer):
        writer.write(ECHO_HEAD + chunk(b"{}\n"))
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
    async with asyncio.timeout(5):
        while not served.codes:
            await asyncio.sleep(0.01)
    assert (served.numbers.seen, served.codes) == ([0], [(ECHO, CANCELLED)])


async def test_a_deadline_ends_a_stream_that_has_begun(served: Served, http: aiohttp.ClientSession) -> None:
    """With a last line, after the answers that came in time."""
    async with http.get(served.url("/-2:count"), headers={"Grpc-Timeout": "300m"}) as got:
        *answers, last = lines_of(await got.text())
    assert (len(answers), last["error"]["code"]) == (2, 4)
    assert served.codes == [(COUNT, 4)]


@asynccontextmanager
async def unread(served: Served, *headers: str) -> AsyncIterator[asyncio.StreamReader]:
    """A stream without end whose client has not read until its lines find no more room."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=16 * 1024)
        head = ["GET /v1/numbers/100000000:count HTTP/1.1", "Host: x", *headers, "\r\n"]
        writer.write("\r\n".join(head).encode())
        try:
            yield reader
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)


async def last_line(reader: asyncio.StreamReader) -> Any:
    """That of a whole body, before which the connection is not reset."""
    answer = b""
    async with asyncio.timeout(10):
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            piece = await reader.read(64 * 1024)
            assert piece
            answer += piece
    return json.loads(answer.split(b"\r\n")[-4])


async def test_who_does_not_read_is_left_the_last_line_of_a_deadline(served: Served) -> None:
    """And the call is counted as what it was."""
    async with unread(served, "Grpc-Timeout: 300m") as reader:
        await asyncio.wait_for(served.numbers.ended.wait(), 5)
        async with asyncio.timeout(5):
            while not served.codes:
                await asyncio.sleep(0.01)
        assert served.codes == [(COUNT, 4)]
        assert (await last_line(reader))["error"]["code"] == 4


async def test_who_does_not_read_is_left_the_last_line_of_a_server_that_stops(served: Served) -> None:
    """Which does not wait for them."""
    async with unread(served) as reader:
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        made = -1
        while made != served.numbers.made:
            made = served.numbers.made
            await asyncio.sleep(0.1)
        assert await asyncio.wait_for(served.server.drain(5), 5)
        assert served.codes == [(COUNT, 14)]
        assert (await last_line(reader))["error"]["code"] == 14


@pytest.mark.parametrize("path", ["/-1:count", ":echo"])
async def test_a_server_that_stops_ends_streams(served: Served, path: str) -> None:
    """With a last line that says so; what was answered before was taken."""
    async with connected(served.port) as (reader, writer):
        if path == ":echo":
            writer.write(ECHO_HEAD + chunk(b"{}\n"))
        else:
            writer.write(b"GET /v1/numbers/-1:count HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert await line_of(reader) == {"result": {"value": "0"}}
        assert await asyncio.wait_for(served.server.drain(5), 5)
        last = await line_of(reader)
        assert (last["error"]["code"], last["error"]["details"][0]["retryDelay"]) == (14, "1s")


@pytest.mark.parametrize("error", [ConnectionResetError(), asyncio.CancelledError()])
async def test_a_method_that_fails_is_our_fault(
    served: Served, http: aiohttp.ClientSession, error: BaseException
) -> None:
    """Also when it fails as a lost client would look: nobody must take it for the end of a good stream."""
    served.numbers.broken = error
    async with http.post(served.url(":echo"), data=b"{}\n{}\n") as got:
        first, last = lines_of(await got.text())
    assert (first, last["error"]["code"]) == ({"result": {"value": "0"}}, 13)
    async with http.post(served.url(":add"), data=b"{}\n") as got:
        assert got.status == 500
    assert [code for _, code in served.codes] == [13, 13]


async def test_a_client_that_is_gone_before_the_last_line_is_no_error_of_ours(served: Served) -> None:
    """Whatever else went wrong: it was cancelled, and nothing is logged."""
    complaints: list[str] = []
    sink = logger.add(complaints.append, level="WARNING", format="{message}")
    try:
        for _ in range(30):
            async with connected(served.port) as (reader, writer):
                writer.write(ECHO_HEAD + chunk(b"{}\n"))
                await asyncio.wait_for(reader.readuntil(b"\n\r\n"), 5)
                writer.write(chunk(b"x\n"))
                await asyncio.sleep(0)
                writer.transport.abort()
        async with connected(served.port) as (reader, writer):
            writer.write(b"GET /v1/numbers/1000000:count HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(0.3)
            writer.write_eof()
            while await asyncio.wait_for(reader.read(100_000), 5):
                pass
        async with asyncio.timeout(5):
            while len(served.codes) < 31:
                await asyncio.sleep(0.01)
    finally:
        logger.remove(sink)
    assert complaints == []
    assert {code for _, code in served.codes} <= {CANCELLED, 3}


async def test_a_body_that_nobody_asked_for_ends_the_connection(served: Served) -> None:
    """It could be taken for the next request, or that for it."""
    async with connected(served.port) as (reader, writer):
        writer.write(
            b"HEAD /v1/numbers/1:count HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"200 OK" in head
        assert b"Connection: close" in head


async def test_an_answer_that_nobody_takes_holds_up_no_drain_for_long(served: Served) -> None:
    """It gets a second."""
    async with connected(served.port) as (_, writer):
        writer.write(ECHO_HEAD)
        line = chunk(b'{"value":1}\n' * 1_000)
        for _ in range(2_000):
            writer.write(line)
        seen = -1
        while seen != len(served.numbers.seen):
            seen = len(served.numbers.seen)
            await asyncio.sleep(0.3)
        assert await asyncio.wait_for(served.server.drain(10), 5)
