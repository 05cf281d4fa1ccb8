"""Request bodies: which are read, and how far.

aiohttp's own reading is not used: it inflates what it does not check to the end, and answers in plain text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from aiohttp import StreamReader, hdrs, web

from ingestor.errors import Invalid, TooLarge, WrongMediaType
from ingestor.transport.compression import GZIP, Inflater, inflated_aside
from ingestor.transport.http.answers import JSON
from ingestor.transport.http.compression import NAMES
from ingestor.transport.share import Share
from ingestor.transport.slowness import coming, held, stood_still
from ingestor.transport.transcoding import printable

# `curl -d` says form-urlencoded unless told otherwise, and means JSON.
_JSON_TYPES = frozenset({JSON, "application/x-www-form-urlencoded", "application/octet-stream"})

_CONTINUE = "100-continue"

# Blank lines are nobody's turn, and a thousand of them some 0.2 ms.
_LINES_A_TURN = 1_000


def coding_of(request: web.BaseRequest, media_type: str = JSON) -> str:
    """How the body, which is JSON, or lines of it for NDJSON, is encoded: GZIP, or empty for as it is. Raises
    WrongMediaType for what is neither."""
    # Most say just this; aiohttp takes ten times as long to see whether there are parameters. An absent header it
    # reads as application/octet-stream.
    headers = request.headers
    said = headers.get(hdrs.CONTENT_TYPE)
    if said != JSON and request.content_type not in _JSON_TYPES and request.content_type != media_type:
        msg = f"send {media_type}, not {printable(request.content_type)}"
        raise WrongMediaType(msg)
    if hdrs.CONTENT_ENCODING not in headers:
        return ""
    encodings = ",".join(headers.getall(hdrs.CONTENT_ENCODING))
    names = (coding.strip().lower() for coding in encodings.split(","))
    codings = [name for name in names if name not in ("", "identity")]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in NAMES:
        msg = f"send the body in gzip, or without content-encoding, not {printable(encodings)}"
        raise WrongMediaType(msg)
    return GZIP


async def decoded(body: bytes, coding: str, bytes_max: int) -> bytes:
    """The body out of this coding. Raises TooLarge or Invalid."""
    return await inflated_aside(body, bytes_max) if coding else body


def unknown_expectation(request: web.BaseRequest) -> str | None:
    """What the client expects of us (RFC 9110, 10.1.1) that we don't know."""
    expected = request.headers.get("Expect")
    return None if expected is None or expected.strip().lower() == _CONTINUE else expected


def body_at_hand(request: web.BaseRequest, bytes_max: int) -> bytes | None:
    """The whole body where it came with the headers, as most do; None where `read_body` has to wait for it, or to
    say what is wrong with it."""
    content = request.content
    if not content.is_eof() or content.exception() is not None:
        return None
    body = content.read_nowait()
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    return body


async def read_body(request: web.BaseRequest, bytes_max: int, share: Share) -> bytes:
    """The whole body. Raises TooLarge, as soon as that is known, SentTooSlowly, Overloaded or Invalid."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    try:
        await invite(request)
        return await _rest(request.content, bytes_max, share)
    except (ConnectionError, web.RequestPayloadError):
        # Of a client that is gone nobody reads this; another one broke the rules of its transfer coding.
        msg = "the body ended before its end"
        raise Invalid(msg) from None


async def _rest(content: StreamReader, bytes_max: int, share: Share) -> bytes:
    body = bytearray()
    async with held(share.receiving, share.bounds.request_timeout_s) as holding:
        while len(body) <= bytes_max and (chunk := await content.readany()):
            body += chunk
            holding.grow(len(chunk))
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    return bytes(body)


class _Inflating:
    """A body that comes in gzip, read as if it came as it is."""

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._inflater = Inflater()

    async def readany(self) -> bytes:
        """What comes next, some of it; nothing at the end. Raises Invalid."""
        while True:
            data = b""
            if self._inflater.has_more:
                await asyncio.sleep(0)  # a small body may be a thousand turns of the event loop
            elif not (data := await self._content.readany()):
                self._inflater.end()
                return b""
            if content := self._inflater.inflate(data):
                return content


async def lines(body: StreamReader, coding: str, bytes_max: int, share: Share) -> AsyncGenerator[bytes, None]:
    """The lines of a body as they come, without their ends and without those that are blank. Raises TooLarge for
    one of more than `bytes_max`, or so much that is blank before one, SentTooSlowly for one that does not come to
    its end, Overloaded, and Invalid."""
    content = _Inflating(body) if coding else body
    blank = 0
    begun = bytearray()
    holding = share.receiving.begin(begun.clear)
    try:
        while chunk := await _more(content, begun, share.bounds.request_timeout_s):
            if holding.ended:
                raise stood_still()
            lying = len(begun)
            *whole, rest = chunk.split(b"\n")
            for number, line in enumerate(whole, 1):
                if not number % _LINES_A_TURN:
                    await _next_turn(blank, bytes_max)
                begun += line
                if len(begun) > bytes_max:
                    raise _too_large(bytes_max, "a line")
                if begun.strip():
                    blank = 0
                    yield bytes(begun)
                else:
                    blank += len(begun) + 1
                begun.clear()
            begun += rest
            if len(begun) > bytes_max:
                raise _too_large(bytes_max, "a line")
            holding.grow(len(begun) - lying)
    except (ConnectionError, web.RequestPayloadError):
        msg = "the body ended before its end"
        raise Invalid(msg) from None
    finally:
        holding.end()
    if begun.strip():
        yield bytes(begun)


async def _next_turn(blank: int, bytes_max: int) -> None:
    if blank > bytes_max:  # of which gzip makes a thousandth
        raise _too_large(bytes_max, "what is blank before a line")
    await asyncio.sleep(0)


async def _more(content: StreamReader | _Inflating, begun: bytearray, line_s: float) -> bytes:
    """What comes next: whenever it likes, unless a line has begun."""
    if not begun:
        return await content.readany()
    async with coming(line_s):
        return await content.readany()


def _too_large(bytes_max: int, what: str = "the body") -> TooLarge:
    return TooLarge(f"{what} is larger than {bytes_max} bytes (MESSAGE_BYTES_MAX)")


async def invite(request: web.BaseRequest) -> None:
    """Asks for the body, where the client waits for that."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


def is_lost(request: web.BaseRequest) -> bool:
    """Says whether what follows on the connection can't be told from this request's body."""
    return request.content.exception() is not None or "Expect" in request.headers
