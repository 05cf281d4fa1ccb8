"""What leaves over HTTP: bodies with their headers, and every refusal as google.rpc.Status in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from aiohttp import web

from ingestor.errors import Refusal
from ingestor.transport.http.compression import GZIP, deflated, takes_gzip
from ingestor.transport.status import answer_to, headers_of, json_of

JSON = "application/json"

# Below, headers are most of an answer; above, compressing takes milliseconds.
_COMPRESSED_MIN, _COMPRESSED_HERE_MAX = 1024, 32 * 1024

_NONE: Mapping[str, str] = {}


def answer(status: int, content_type: str, body: bytes, headers: Mapping[str, str] = _NONE) -> web.Response:
    """A response that names the server without a version: aiohttp's own header would tell which mistakes to look
    for."""
    own = {"Content-Type": content_type, "Server": "ingestor"}
    return web.Response(status=status, body=body, headers={**own, **headers} if headers else own)


def nothing(headers: Mapping[str, str]) -> web.Response:
    """A response without a body."""
    return web.Response(status=204, headers={"Server": "ingestor", **headers})


def worth_compressing(response: web.Response) -> bool:
    """Whether its body is large enough."""
    body = response.body
    return isinstance(body, bytes) and len(body) >= _COMPRESSED_MIN


async def compress(response: web.Response, accept_encoding: str | None) -> None:
    """Lets a response that is worth it leave in gzip, where the client takes that."""
    body = response.body
    assert isinstance(body, bytes)
    response.headers.add("Vary", "Accept-Encoding")
    if accept_encoding is None or not takes_gzip(accept_encoding):
        return
    large = len(body) > _COMPRESSED_HERE_MAX
    response.body = await asyncio.to_thread(deflated, body) if large else deflated(body)
    response.headers["Content-Encoding"] = GZIP


def refuse(refusal: Refusal, status: int | None = None) -> web.Response:
    """The response for a refusal; `status` where HTTP has a closer one than the table of all protocols."""
    http = answer_to(refusal).http if status is None else status
    return answer(http, JSON, json_of(refusal).encode(), headers_of(refusal))


def json_page(status: int, content: object) -> tuple[int, str, bytes]:
    """What a Page answers with, for JSON content."""
    return status, JSON, json.dumps(content).encode() + b"\n"
