"""Streams over HTTP in gzip, either way: line by line, whole at their end, and never inflated at once."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import aiohttp
import pytest

from ingestor.transport.compression import Inflater
from ingestor.transport.http import streams
from ingestor.transport.http.compression import Deflater
from tests.transport.http.streams_kit import ECHO_HEAD, Served, chunk, connected, line_of, lines_of
from tests.transport.streaming_kit import COUNT, ECHO

GZIP = {"Content-Encoding": "gzip"}


async def test_lines_in_gzip_are_read_as_they_come(served: Served) -> None:
    """However they are cut into packets, each is answered when it is there."""
    deflater = zlib.compressobj(wbits=31)
    async with connected(served.port) as (reader, writer):
        writer.write(ECHO_HEAD.replace(b"Origin: y", b"Content-Encoding: gzip"))
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
