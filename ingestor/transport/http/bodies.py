"""Request bodies: which are read, and how far.

aiohttp's own reading is not used: it inflates what it does not check to the end, and answers in plain text.
"""

from __future__ import annotations

from aiohttp import StreamReader, web

from ingestor.errors import Invalid, TooLarge, WrongMediaType
from ingestor.transport.http.answers import JSON
from ingestor.transport.transcoding import printable

# `curl -d` says form-urlencoded unless told otherwise, and means JSON.
_JSON_TYPES = frozenset({JSON, "application/x-www-form-urlencoded", "application/octet-stream"})

_CONTINUE = "100-continue"


def check_headers(request: web.BaseRequest) -> None:
    """Raises WrongMediaType unless the body is JSON as it is."""
    # aiohttp reads an absent header as application/octet-stream.
    if request.content_type not in _JSON_TYPES:
        msg = f"send {JSON}, not {printable(request.content_type)}"
        raise WrongMediaType(msg)
    for coding in request.headers.getall("Content-Encoding", []):
        if coding.strip().lower() not in ("", "identity"):
            msg = f"send the body without content-encoding, not {printable(coding)}"
            raise WrongMediaType(msg)


def unknown_expectation(request: web.BaseRequest) -> str | None:
    """What the client expects of us (RFC 9110, 10.1.1) that we don't know."""
    expected = request.headers.get("Expect", _CONTINUE)
    return None if expected.strip().lower() == _CONTINUE else expected


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The whole body. Raises TooLarge, as soon as that is known, or Invalid."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    content = request.content
    try:
        await _invite(request)
        body = await content.readany()
        if content.at_eof() and len(body) <= bytes_max:
            return body  # as most are: there at once
        return await _rest(content, body, bytes_max)
    except (ConnectionError, web.RequestPayloadError):
        # Of a client that is gone nobody reads this; another one broke the rules of its transfer coding.
        msg = "the body ended before its end"
        raise Invalid(msg) from None


async def _rest(content: StreamReader, begun: bytes, bytes_max: int) -> bytes:
    body = bytearray(begun)
    while chunk := await content.readany():
        body += chunk
        if len(body) > bytes_max:
            break
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    return bytes(body)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"the body is larger than {bytes_max} bytes (MESSAGE_BYTES_MAX)")


async def _invite(request: web.BaseRequest) -> None:
    """Asks for the body, where the client waits for that."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


def is_lost(request: web.BaseRequest) -> bool:
    """Says whether what follows on the connection can't be told from this request's body."""
    return request.content.exception() is not None or "Expect" in request.headers
