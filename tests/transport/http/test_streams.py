"""Streams over HTTP: lines in, lines out, at the pace of whoever is slower."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.gateway import gateway
from tests.transport.http.streams_kit import ECHO_HEAD, LINE_MAX, Served, chunk, connected, line_of, lines_of
from tests.transport.streaming_kit import ECHO


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
        writer.write(ECHO_HEAD)
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
        (gzip.compress(b'{"value":1}', mtime=0)[:-1], {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"[" * (LINE_MAX + 1), mtime=0), {"Content-Encoding": "gzip"}, 413),
        (gzip.compress(b"\n" * 1_000_000, mtime=0), {"Content-Encoding": "gzip"}, 413),
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
