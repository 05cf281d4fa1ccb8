"""What leaves over HTTP: bodies with their headers, and every refusal as google.rpc.Status in JSON."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeGuard

from aiohttp import web

from ingestor.errors import Refusal
from ingestor.transport.http.compression import GZIP, deflated, takes_gzip
from ingestor.transport.status import answer_to, headers_of, json_of

JSON = "application/json"
NDJSON = "application/x-ndjson"

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


def begun() -> web.StreamResponse:
    """A response whose body are lines of JSON that are yet to come."""
    return web.StreamResponse(headers={"Content-Type": NDJSON, "Server": "ingestor"})


def worth_compressing(response: web.StreamResponse) -> TypeGuard[web.Response]:
    """Whether its body is there, and large enough."""
    body = response.body if isinstance(response, web.Response) else None
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
    if (tag := response.headers.get("ETag")) is not None:
        response.headers["ETag"] = f"W/{tag}"  # the same content, in other bytes


def refuse(refusal: Refusal, status: int | None = None) -> web.Response:
    """The response for a refusal; `status` where HTTP has a closer one than the table of all protocols."""
    http = answer_to(refusal).http if status is None else status
    return answer(http, JSON, json_of(refusal).encode(), headers_of(refusal))


class Content(NamedTuple):
    """What a page answers with. Where `headers` have an ETag, who has it already is told so."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = _NONE


Page = Callable[[], Awaitable[Content]]
"""A page at a fixed path."""


def json_page(status: int, content: object) -> Content:
    """JSON content."""
    return Content(status, JSON, json.dumps(content).encode() + b"\n")


def fixed_page(content_type: str, body: bytes, headers: Mapping[str, str] = _NONE) -> Page:
    """A page that stays as it is while the server runs: caches may keep it, and ask whether it still is."""
    tag = hashlib.sha256(body).hexdigest()[:32]
    content = Content(200, content_type, body, {"ETag": f'"{tag}"', "Cache-Control": "no-cache", **headers})

    async def page() -> Content:
        return content

    return page


def page_response(content: Content, none_match: str | None) -> web.Response:
    """The response for a page's content; `none_match` is the request's If-None-Match."""
    tag = content.headers.get("ETag")
    if tag is None or none_match is None or not _matches(none_match, tag):
        return answer(*content)
    return web.Response(status=304, headers={"Server": "ingestor", **content.headers})


def _matches(none_match: str, tag: str) -> bool:
    """RFC 9110, 13.1.2: compared weakly."""
    given = [each.strip().removeprefix("W/") for each in none_match.split(",")]
    return tag in given or given == ["*"]
