"""Request bodies: which are read, and how far.

aiohttp's own reading is not used: it inflates what it does not check to the end, and answers in plain text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from aiohttp import StreamReader, web

from ingestor.errors import Invalid, TooLarge, WrongMediaType
from ingestor.transport.http.answers import JSON
from ingestor.transport.http.compression import GZIP, NAMES, inflated
from ingestor.transport.transcoding import printable

# `curl -d` says form-urlencoded unless told otherwise, and means JSON.
_JSON_TYPES = frozenset({JSON, "application/x-www-form-urlencoded", "application/octet-stream"})

_CONTINUE = "100-continue"

# Blank lines are nobody's turn, and a thousand of them some 0.2 ms.
_LINES_A_TURN = 1_000

# gzip makes a thousandth of zeros at the best: these are some 2 ms.
_INFLATED_HERE_MAX = 2048


def coding_of(request: web.BaseRequest, media_type: str = JSON) -> str:
    """How the body, which is JSON, or lines of it for NDJSON, is encoded: GZIP, or empty for as it is. Raises
    WrongMediaType for what is neither."""
    # Most say just this; aiohttp takes ten times as long to see whether there are parameters. An absent header it
    # reads as application/octet-stream.
    said = request.headers.get("Content-Type")
    if said != JSON and request.content_type not in _JSON_TYPES and request.content_type != media_type:
        msg = f"send {media_type}, not {printable(request.content_type)}"
        raise WrongMediaType(msg)
    if "Content-Encoding" not in request.headers:
        return ""
    encodings = ",".join(request.headers.getall("Content-Encoding"))
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
    if not coding:
        return body
    if len(body) > _INFLATED_HERE_MAX:
        return await asyncio.to_thread(inflated, body, bytes_max)
    return inflated(body, bytes_max)


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


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The whole body. Raises TooLarge, as soon as that is known, or Invalid."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    try:
        await invite(request)
        return await _rest(request.content, bytes_max)
    except (ConnectionError, web.RequestPayloadError):
        # Of a client that is gone nobody reads this; another one broke the rules of its transfer coding.
        msg = "the body ended before its end"
        raise Invalid(msg) from None


async def _rest(content: StreamReader, bytes_max: int) -> bytes:
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        if len(body) > bytes_max:
            break
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    return bytes(body)


async def lines(content: StreamReader, bytes_max: int) -> AsyncGenerator[bytes, None]:
    """The lines of a body as they come, without their ends and without those that are blank. Raises TooLarge for
    one of more than `bytes_max`, and Invalid."""
    begun = bytearray()
    try:
        while chunk := await content.readany():
            *whole, rest = chunk.split(b"\n")
            for number, line in enumerate(whole, 1):
                if not number % _LINES_A_TURN:
                    await asyncio.sleep(0)
                begun += line
                if len(begun) > bytes_max:
                    raise _too_large(bytes_max, "a line")
                if begun.strip():
                    yield bytes(begun)
                begun.clear()
            begun += rest
            if len(begun) > bytes_max:
                raise _too_large(bytes_max, "a line")
    except (ConnectionError, web.RequestPayloadError):
        msg = "the body ended before its end"
        raise Invalid(msg) from None
    if begun.strip():
        yield bytes(begun)


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
