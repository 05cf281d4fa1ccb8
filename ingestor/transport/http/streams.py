"""A streaming rpc over HTTP/1.1, as grpc-gateway has it: lines of JSON in, where its requests are streamed, and
lines of JSON out, where its answers are, each as `{"result": ...}`; after an error the last is `{"error": ...}`.

Each line leaves by itself, in gzip, too, and the next is made once the client has taken it off our hands.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

from aiohttp import web
from aiohttp.http_writer import StreamWriter

from ingestor.errors import Refusal
from ingestor.transport.http.answers import NDJSON, begun, json_answer, lets_gzip
from ingestor.transport.http.bodies import coding_of, decoded, invite, lines, read_body
from ingestor.transport.http.compression import Deflater
from ingestor.transport.rpc import StreamedRequest
from ingestor.transport.share import Share
from ingestor.transport.status import json_of
from ingestor.transport.streams import Closing
from ingestor.transport.transcoding import Matched, Route

# Not every system has it.
_UNSENT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_UNSENT_BYTES_MAX = 64 * 1024
# To be deflated in one turn of the event loop: some 1 ms.
_PIECE_BYTES = 32 * 1024


class Gone(Exception):
    """The client is: nobody is left to be told anything."""


class Streamed:
    """One call. `response` is what it is answered with, once that has begun; `dress` adds headers to it before."""

    def __init__(
        self,
        target: Route | Matched,
        request: web.BaseRequest,
        bytes_max: int,
        share: Share,
        dress: Callable[[web.StreamResponse, web.BaseRequest], None],
    ) -> None:
        self._target = target
        self._request = request
        self._query = request.rel_url.raw_query_string
        self._bytes_max = bytes_max
        self._share = share
        self._dress = dress
        self._deflater: Deflater | None = None
        self.response = begun()

    async def requests(self, closing: Closing) -> AsyncGenerator[StreamedRequest, None]:
        """What is asked: each line, or all of the request where the rpc takes one. Raises Refusal."""
        target = self._target
        if not target.rpc.client_streaming:
            yield await target.read(await self._whole(closing), self._query)
            return
        coding = coding_of(self._request, NDJSON)
        await invite(self._request)
        async with aclosing(lines(self._request.content, coding, self._bytes_max, self._share)) as found:
            while True:
                async with closing.waiting():
                    line = await anext(found, None)
                if line is None:
                    return
                given = [await target.read(line, self._query)]
                del line  # the method may wait for long
                yield given.pop()

    async def send(self, message: bytes) -> None:
        """Answers with this, and returns when there is room for more. Raises Gone."""
        text = await self._target.text(message)
        if self._target.rpc.server_streaming:
            await self._write(b'{"result":' + text + b"}\n")
        else:
            self.response = json_answer(text)

    async def fail(self, refusal: Refusal) -> None:
        """Tells of it in a last line, for which nobody waits: who has not read until now is left what there is to
        read, and no more of the connection. Raises Gone."""
        writer = self._writer
        with _told():
            await self._begin()
            line = f'{{"error":{json_of(refusal)}}}\n'.encode()
            if self._deflater is not None:
                line = self._deflater.add(line) + self._deflater.end()
                self._deflater = None
            await writer.write(line, drain=False)
            writer.set_eof()
        if writer.protocol.writing_paused:
            self.response.force_close()

    async def end(self) -> web.StreamResponse:
        """There are no more answers. Raises Gone."""
        if self._target.rpc.server_streaming:
            with _told():
                await self._begin()
                await self.response.write_eof(b"" if self._deflater is None else self._deflater.end())
        return self.response

    async def _write(self, line: bytes) -> None:
        with _told():
            await self._begin()
            if self._deflater is not None:
                line = await self._deflated(line, self._deflater)
            await self.response.write(line)

    async def _deflated(self, line: bytes, deflater: Deflater) -> bytes:
        """The line in gzip. Where the call ends meanwhile, the line is sent whole before: half of it can't be taken
        back."""
        pieces = (line[start : start + _PIECE_BYTES] for start in range(0, len(line), _PIECE_BYTES))
        made: list[bytes] = []
        try:
            for piece in pieces:
                made.append(deflater.add(piece))
                if len(line) > _PIECE_BYTES:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            made += [*map(deflater.add, pieces), deflater.flush()]
            await self._writer.write(b"".join(made), drain=False)
            raise
        return b"".join([*made, deflater.flush()])

    @property
    def _writer(self) -> StreamWriter:
        writer = self._request.writer
        assert isinstance(writer, StreamWriter)
        return writer

    async def _begin(self) -> None:
        if not self.response.prepared:
            self._dress(self.response, self._request)
            if lets_gzip(self.response, self._request.headers.get("Accept-Encoding")):
                self._deflater = Deflater()
            _keep_little(self._request.transport)
            await self.response.prepare(self._request)

    async def _whole(self, closing: Closing) -> bytes:
        coding = coding_of(self._request) if self._target.takes_body or self._request.body_exists else ""
        async with closing.waiting():
            body = await read_body(self._request, self._bytes_max, self._share)
        return await decoded(body, coding, self._bytes_max)


def _keep_little(transport: asyncio.Transport | None) -> None:
    """For a client that does not read, the kernel would take megabytes off our hands, which all are made."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and _UNSENT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _UNSENT, _UNSENT_BYTES_MAX)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise Gone from None
