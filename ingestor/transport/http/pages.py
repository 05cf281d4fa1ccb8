"""Pages: what is served at fixed paths beside the rpcs, made anew for each request, or once for all of them.

They are no calls: they wait for nothing that calls wait for, and are not counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from aiohttp import web

from ingestor.transport.http.answers import JSON, NO_HEADERS, answer, compress, gzipped, worth_compressing

# What is said of a body that is not sent.
_OF_A_BODY = frozenset({"Content-Type", "Content-Encoding"})


class Content(NamedTuple):
    """What a page answers with. Where `headers` have an ETag, who has it already is told so. `gzipped` gives the
    body in gzip, where that is kept."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = NO_HEADERS
    gzipped: Callable[[], Awaitable[bytes]] | None = None


Page = Callable[[], Awaitable[Content]]
"""A page at a fixed path."""


def json_page(status: int, content: object) -> Content:
    """JSON content."""
    return Content(status, JSON, json.dumps(content).encode() + b"\n")


def fixed_page(content_type: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Page:
    """A page that stays as it is while the server runs: caches may keep it, and ask whether it still is."""
    tag = hashlib.sha256(body).hexdigest()[:32]
    about = {"ETag": f'"{tag}"', "Cache-Control": "no-cache", **headers}
    content = Content(200, content_type, body, about, _Gzipped(body).once)

    async def page() -> Content:
        return content

    return page


async def page_response(
    content: Content, none_match: str | None, accept_encoding: str | None
) -> web.Response:
    """The response for a page's content; the rest are the request's If-None-Match and Accept-Encoding."""
    response = answer(content.status, content.content_type, content.body, content.headers)
    if worth_compressing(response):
        await compress(response, accept_encoding, content.gzipped)
    tag = content.headers.get("ETag")
    if tag is None or none_match is None or not _matches(none_match, tag):
        return response
    # With the headers of the response that it stands for (RFC 9110, 15.4.5).
    kept = {name: value for name, value in response.headers.items() if name not in _OF_A_BODY}
    return web.Response(status=304, headers=kept)


class _Gzipped:
    """A body in gzip, which is made when the first client wants it: tens of milliseconds for the largest."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._made: bytes | None = None
        self._making = asyncio.Lock()

    async def once(self) -> bytes:
        """Those bytes, made once whoever asks meanwhile."""
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await gzipped(self._body)
        return self._made


def _matches(none_match: str, tag: str) -> bool:
    """RFC 9110, 13.1.2: compared weakly."""
    given = [each.strip().removeprefix("W/") for each in none_match.split(",")]
    return tag in given or given == ["*"]
