"""Streams over HTTP: lines in, lines out, at the pace of whoever is slower."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from google.api.http_pb2 import HttpRule
from loguru import logger

from ingestor.transport.compression import Inflater
from ingestor.transport.http import HttpServer, streams
from ingestor.transport.http.compression import Deflater
from ingestor.transport.observing import CANCELLED
from ingestor.transport.transcoding import Router
from tests.gateway import gateway
from tests.transport.streaming_kit import COUNT, ECHO, POOL, Numbers

LINE_MAX = 1_000
_RULES = {
    "Count": HttpRule(get="/v1/numbers/{value}:count"),
    "Add": HttpRule(post="/v1/numbers:add", body="*"),
    "Echo": HttpRule(post="/v1/numbers:echo", body="*"),
}


class Served:
    """The numbers over HTTP. `codes` are what was observed of the calls: the rpc's path, and gRPC's code."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self.codes: list[tuple[str, int]] = []
        rpcs = [replace(rpc, http=_RULES[rpc.path.rpartition("/")[2]]) for rpc in self.numbers.rpcs()]
        self.server = HttpServer(
            Router(rpcs, POOL), {}, body_bytes_max=LINE_MAX, observe=self._observe, cors_origins=["*"]
        )
        self.port = 0

    def _observe(self, path: str, protocol: str) -> Callable[[int, float], None]:
        return lambda code, seconds: self.codes.append((path, code))

    def url(self, method: str) -> str:
        return f"http://127.0.0.1:{self.port}/v1/numbers{method}"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    one = Served()
    one.port = await one.server.start("127.0.0.1", 0)
    yield one
    await one.server.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_ECHO = b"POST /v1/numbers:echo HTTP/1.1\r\nHost: x\r\nOrigin: y\r\nTransfer-Encoding: chunked\r\n\r\n"


async def line_of(reader: asyncio.StreamReader) -> Any:
    """The next chunk, which is one line."""
    size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), 5), 16)
    data = await asyncio.wait_for(reader.readexactly(size + 2), 5)
    assert data.endswith(b"\n\r\n")
    return json.loads(data)


def lines_of(text: str) -> list[Any]:
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


async def test_an_answer_for_each_line_in_order(served: Served, http: aiohttp.ClientSession) -> None:
    """However they are cut into packets; blank lines say nothing, and the last needs no end."""
    body = b'{"value":"1"}\n\n{"value":2}\r\n  \n{}\n{"value":"4"}'
    for size in (1, 7, len(body)):
        parts = [body[start : start + size] for start in range(0, len(body), size)]

        async def sent(parts: list[bytes] = parts) -> AsyncIterator[bytes]:
            for part in parts:
                yield part
                await asyncio.sleep(0)

        async with http.post(
            served.url(":echo"), data=sent(), headers={"Content-Type": "application/x-ndjson"}
        ) as got:
            assert (got.status, got.content_type) == (200, "application/x-ndjson")
            assert lines_of(await got.text()) == [
                {"result": {"value": each}} for each in ("1", "2", "0", "4")
            ]
    assert served.codes == [(ECHO, 0)] * 3


async def test_each_answer_leaves_before_the_next_line_is_there(served: Served) -> None:
    """A conversation; and it ends when the client ends it."""
    async with connected(served.port) as (reader, writer):
        writer.write(_ECHO)
        for value in ("5", "6"):
            writer.write(chunk(b'{"value":"%b"}\n' % value.encode()))
            if value == "5":
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                assert b"200 OK" in head
                assert b"Grpc-Metadata-answer: yes" in head
                assert b"Access-Control-Allow-Origin: *" in head
            assert await line_of(reader) == {"result": {"value": value}}
        writer.write(b"0\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n"), 5) == b"0\r\n"


async def test_a_bad_line_ends_the_stream_after_the_answers_before_it(
    served: Served, http: aiohttp.ClientSession
) -> None:
    """Nothing behind it is taken. As the first it is an error as of any other call."""
    bad = b'{"value":"1"}\n{"value":"x"}\n{"value":"3"}\n'
    async with http.post(served.url(":echo"), data=bad) as got:
        first, last = lines_of(await got.text())
    assert (got.status, first) == (200, {"result": {"value": "1"}})
    assert (last["error"]["code"], last["error"]["message"][:6]) == (3, "value:")
    assert served.numbers.seen == [1]
    async with http.post(served.url(":echo"), data=b'{"valu":1}\n') as got:
        status = json.loads(await got.text())
        assert (got.status, got.content_type, status["code"]) == (400, "application/json", 3)
    assert served.codes == [(ECHO, 3)] * 2


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[" * (LINE_MAX + 1), {}, 413),
        (b"x", {"Content-Type": "text/plain"}, 415),
        (b"x", {"Content-Encoding": "br"}, 415),
        (b"x", {"Content-Encoding": "gzip"}, 400),
        (b"", {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b'{"value":1}')[:-1], {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"[" * (LINE_MAX + 1)), {"Content-Encoding": "gzip"}, 413),
        (gzip.compress(b"\n" * 1_000_000), {"Content-Encoding": "gzip"}, 413),
        (b'{"value":1}\n', {"Grpc-Timeout": "soon"}, 400),
        (b'{"value":1}\n', {"Grpc-Timeout": "0S"}, 504),
    ],
)
async def test_what_is_wrong_before_the_first_answer_has_its_status(
    served: Served, http: aiohttp.ClientSession, body: bytes, headers: dict[str, str], status: int
) -> None:
    """A line is bounded as a body is."""
    async with http.post(served.url(":echo"), data=body, headers=headers) as got:
        assert got.status == status, await got.text()
        assert "error" not in json.loads(await got.text())
    assert served.numbers.seen == []


GZIP = {"Content-Encoding": "gzip"}


async def test_lines_in_gzip_are_read_as_they_come(served: Served) -> None:
    """However they are cut into packets, each is answered when it is there."""
    deflater = zlib.compressobj(wbits=31)
    async with connected(served.port) as (reader, writer):
        writer.write(_ECHO.replace(b"Origin: y", b"Content-Encoding: gzip"))
        for value in range(3):
            data = deflater.compress(b'{"value":%d}\n' % value) + deflater.flush(zlib.Z_SYNC_FLUSH)
            for place in range(len(data)):
                writer.write(chunk(data[place : place + 1]))
                await asyncio.sleep(0)
            if not value:
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert await line_of(reader) == {"result": {"value": str(value)}}
        writer.write(chunk(deflater.flush()) + b"0\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n"), 5) == b"0\r\n"
    assert served.codes == [(ECHO, 0)]


@pytest.mark.parametrize("cut", [3, 8, 9])
async def test_gzip_that_breaks_off_ends_a_stream_after_the_answers_before(
    served: Served, http: aiohttp.ClientSession, cut: int
) -> None:
    """Within its trailer, too: what can't be checked is not whole. So does one that is no gzip from somewhere on,
    or goes on behind its end."""
    good = gzip.compress(b'{"value":1}\n' * 3)
    for data, said in (
        (good[:-cut], "ended before its end"),
        (good[:-cut] + b"x" * cut, "is not gzip"),
        (good + b"x", "something follows"),
    ):
        async with http.post(served.url(":echo"), data=data, headers=GZIP) as got:
            *answers, last = map(json.loads, (await got.text()).splitlines())
        assert len(answers) <= 3
        assert last.get("error", last)["code"] == 3
        assert said in last.get("error", last)["message"]


async def test_much_that_is_inflated_of_little_is_never_whole_in_memory(
    served: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read in pieces, and as much of it as is answered."""
    pieces: list[int] = []
    inflate = Inflater.inflate

    def watched(self: Inflater, data: bytes) -> bytes:
        pieces.append(len(content := inflate(self, data)))
        return content

    monkeypatch.setattr(Inflater, "inflate", watched)
    body = gzip.compress(b'{"value":1}\n' * 20_000)
    async with http.post(served.url(":echo"), data=body, headers=GZIP) as got:
        assert len(lines_of(await got.text())) == 20_000
    assert max(pieces) == 64 * 1024
    assert sum(pieces) == 12 * 20_000


async def test_answers_leave_in_gzip_line_by_line_for_who_takes_it(served: Served) -> None:
    """Each can be read when it has come; the stream is whole at its end, also of an error."""
    for path, end in (("2:count", None), ("-2:count", 4)):
        inflater = zlib.decompressobj(31)
        async with connected(served.port) as (reader, writer):
            head = f"GET /v1/numbers/{path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n"
            writer.write(f"{head}Grpc-Timeout: 300m\r\nConnection: close\r\n\r\n".encode())
            said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert b"Content-Encoding: gzip\r\n" in said
            assert b"Vary: Accept-Encoding\r\n" in said
            for value in range(2):
                size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), 5), 16)
                line = inflater.decompress((await reader.readexactly(size + 2))[:-2])
                assert line == b'{"result":{"value":"%d"}}\n' % value
            size = int(await asyncio.wait_for(reader.readuntil(b"\r\n"), 5), 16)
            last = inflater.decompress((await reader.readexactly(size + 2))[:-2])
            assert inflater.eof
            assert (json.loads(last)["error"]["code"] if last else None) == end
            assert await asyncio.wait_for(reader.read(), 5) == b"0\r\n\r\n"
    assert served.codes == [(COUNT, 0), (COUNT, 4)]


async def test_a_call_that_ends_while_a_long_line_is_deflated_sends_it_whole(
    served: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What of it went into the stream can't be taken back, and the last line must not stand in its middle."""
    monkeypatch.setattr(streams, "_PIECE_BYTES", 3)
    added = 0
    add = Deflater.add

    def cancelling(self: Deflater, piece: bytes) -> bytes:
        nonlocal added
        added += 1
        if added == 4:
            served.server._closing.begin()
        return add(self, piece)

    monkeypatch.setattr(Deflater, "add", cancelling)
    async with http.get(served.url("/1000:count")) as got:
        first, last = lines_of(await got.text())
    assert got.headers["Content-Encoding"] == "gzip"
    assert (first, last["error"]["code"]) == ({"result": {"value": "0"}}, 14)


async def test_a_line_of_too_many_bytes_ends_a_stream(served: Served, http: aiohttp.ClientSession) -> None:
    """It is not kept in memory until its end comes."""
    async with http.post(served.url(":echo"), data=b"{}\n" + b" " * 100_000) as got:
        first, last = lines_of(await got.text())
    assert (first, last["error"]["code"]) == ({"result": {"value": "0"}}, 8)


async def test_one_request_and_many_answers(served: Served, http: aiohttp.ClientSession) -> None:
    """From the path, as of any other call; HEAD asks for none; none at all is an empty body."""
    async with http.get(served.url("/3:count")) as got:
        assert lines_of(await got.text()) == [{"result": {"value": str(each)}} for each in range(3)]
    async with http.get(served.url("/0:count")) as got:
        assert (got.status, got.content_type, await got.text()) == (200, "application/x-ndjson", "")
    async with http.head(served.url("/3:count")) as got:
        assert (got.status, await got.text()) == (200, "")
    async with http.get(served.url("/x:count")) as got:
        assert got.status == 400
    assert served.numbers.seen == [3, 0]


async def test_many_requests_and_one_answer(served: Served, http: aiohttp.ClientSession) -> None:
    """It is JSON as of any other call."""
    async with http.post(served.url(":add"), data=b'{"value":1}\n{"value":41}\n') as got:
        assert (got.status, got.content_type, await got.json()) == (200, "application/json", {"value": "42"})


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
        writer.write(_ECHO + chunk(b"{}\n"))
        await asyncio.wait_for(reader.readuntil(b"\n\r\n"), 5)
        writer.transport.abort()
        await asyncio.wait_for(served.numbers.ended.wait(), 5)


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
    """That of a whole body: the connection ends with it, and is not reset."""
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.endswith(b"\r\n0\r\n\r\n")
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
            writer.write(_ECHO + chunk(b"{}\n"))
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
                writer.write(_ECHO + chunk(b"{}\n"))
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
        writer.write(_ECHO)
        line = chunk(b'{"value":1}\n' * 1_000)
        for _ in range(2_000):
            writer.write(line)
        seen = -1
        while seen != len(served.numbers.seen):
            seen = len(served.numbers.seen)
            await asyncio.sleep(0.3)
        assert await asyncio.wait_for(served.server.drain(10), 5)


async def test_metrics_are_streamed_as_lines(database_url: str) -> None:
    """The whole way: an answer for each request, bad metrics listed in it, and all is stored."""
    good = {"serviceName": "api", "metricName": "latency", "value": 1.5}
    requests = [{"metrics": [good] * size} for size in (1, 3)] + [
        {"metrics": [good, {**good, "value": "NaN"}]}
    ]
    body = "".join(json.dumps(each) + "\n" for each in requests)
    async with gateway(database_url) as app, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{app.http_port}/v1/metrics:stream"
        async with session.post(url, data=body.encode()) as got:
            answers = [line["result"] for line in lines_of(await got.text())]
        assert [answer["accepted"] for answer in answers] == ["1", "3", "1"]
        assert [len(answer["rejected"]) for answer in answers] == [0, 0, 1]
        async with session.post(url, data=(body + '{"metrics":[]}\n' + body).encode()) as got:
            *more, last = lines_of(await got.text())
        assert (len(more), last["error"]["code"]) == (3, 3)
