"""What leaves over HTTP: bodies with their headers, and every refusal as google.rpc.Status in JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeGuard

from aiohttp import web

from ingestor.errors import Refusal
from ingestor.transport.compression import GZIP
from ingestor.transport.http.compression import deflated, takes_gzip
from ingestor.transport.status import answer_to, headers_of, json_of

JSON = "application/json"
NDJSON = "application/x-ndjson"

# Below, headers are most of an answer; above, compressing takes milliseconds.
_COMPRESSED_MIN, _COMPRESSED_HERE_MAX = 1024, 32 * 1024

# What Vary says of a response that may leave in gzip.
_VARIES = "Accept-Encoding"

NO_HEADERS: Mapping[str, str] = {}


def answer(
    status: int, content_type: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS
) -> web.Response:
    """A response that names the server without a version: aiohttp's own header would tell which mistakes to look
    for."""
    own = {"Content-Type": content_type, "Server": "ingestor"}
    return web.Response(status=status, body=body, headers={**own, **headers} if headers else own)


# Each answer takes a copy, which is cheaper whole than header by header.
_JSON_HEADERS = web.Response(headers={"Content-Type": JSON, "Server": "ingestor"}).headers


def json_answer(body: bytes) -> web.Response:
    """The response for what a call has answered."""
    return web.Response(body=body, headers=_JSON_HEADERS)


def nothing(headers: Mapping[str, str]) -> web.Response:
    """A response without a body."""
    return web.Response(status=204, headers={"Server": "ingestor", **headers})


def begun() -> web.StreamResponse:
    """A response whose body are lines of JSON that are yet to come."""
    return web.StreamResponse(headers={"Content-Type": NDJSON, "Server": "ingestor"})


def worth_compressing(response: web.StreamResponse) -> TypeGuard[web.Response]:
    """Whether its body is there, and large enough, and nobody has decided on it yet."""
    body = response.body if isinstance(response, web.Response) else None
    return (
        isinstance(body, bytes)
        and len(body) >= _COMPRESSED_MIN
        and _VARIES not in response.headers.getall("Vary", ())
    )


async def gzipped(body: bytes) -> bytes:
    """The body in gzip."""
    return await asyncio.to_thread(deflated, body) if len(body) > _COMPRESSED_HERE_MAX else deflated(body)


async def compress(
    response: web.Response, accept_encoding: str | None, kept: Callable[[], Awaitable[bytes]] | None = None
) -> None:
    """Lets a response that is worth it leave in gzip, where the client takes that; `kept` gives that of a body
    which is sent more than once."""
    assert isinstance(response.body, bytes)
    if not lets_gzip(response, accept_encoding):
        return
    response.body = await (gzipped(response.body) if kept is None else kept())
    if (tag := response.headers.get("ETag")) is not None:
        response.headers["ETag"] = f"W/{tag}"  # the same content, in other bytes


def lets_gzip(response: web.StreamResponse, accept_encoding: str | None) -> bool:
    """Says in a response's headers that it is in gzip, and that others may get it otherwise; that alone where the
    client does not take gzip."""
    response.headers.add("Vary", _VARIES)
    if accept_encoding is None or not takes_gzip(accept_encoding):
        return False
    response.headers["Content-Encoding"] = GZIP
    return True


def refuse(refusal: Refusal, status: int | None = None) -> web.Response:
    """The response for a refusal; `status` where HTTP has a closer one than the table of all protocols."""
    http = answer_to(refusal).http if status is None else status
    return answer(http, JSON, json_of(refusal).encode(), headers_of(refusal))
