"""What leaves over HTTP: bodies with their headers, and every refusal as google.rpc.Status in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from ingestor.errors import Refusal
from ingestor.transport.status import answer_to, headers_of, json_of

JSON = "application/json"

_NONE: Mapping[str, str] = {}


def answer(status: int, content_type: str, body: bytes, headers: Mapping[str, str] = _NONE) -> web.Response:
    """A response that names the server without a version: aiohttp's own header would tell which mistakes to look
    for."""
    own = {"Content-Type": content_type, "Server": "ingestor"}
    return web.Response(status=status, body=body, headers={**own, **headers} if headers else own)


def refuse(refusal: Refusal, status: int | None = None) -> web.Response:
    """The response for a refusal; `status` where HTTP has a closer one than the table of all protocols."""
    http = answer_to(refusal).http if status is None else status
    return answer(http, JSON, json_of(refusal).encode(), headers_of(refusal))


def json_page(status: int, content: object) -> tuple[int, str, bytes]:
    """What a Page answers with, for JSON content."""
    return status, JSON, json.dumps(content).encode() + b"\n"
