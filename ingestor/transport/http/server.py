"""Serves HTTP on aiohttp: one handler for all transcoded routes, and the fixed pages beside it.

Every error leaves as google.rpc.Status in JSON, aiohttp's own included; nothing of our insides leaves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from loguru import logger

from ingestor.errors import (
    AddressProblem,
    Invalid,
    Refusal,
    TooLarge,
    Unavailable,
    WrongMediaType,
    WrongMethod,
)
from ingestor.transport.status import InternalFault, answer_to, headers_of, json_of
from ingestor.transport.transcoding import Router

# `curl -d` says form-urlencoded unless told otherwise, and means JSON.
_JSON_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded", "application/octet-stream"})
_JSON = "application/json"

_NONE: Mapping[str, str] = {}

Page = Callable[[], Awaitable[tuple[int, str, bytes]]]
"""A fixed page: answers with status, content type and body."""


class HttpServer:
    """One listening address. `start`, then `drain` and `close`, once each."""

    def __init__(self, router: Router, pages: dict[str, Page], *, body_bytes_max: int) -> None:
        self._router = router
        self._pages = pages
        self._body_bytes_max = body_bytes_max
        self._draining = False
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        app = web.Application(client_max_size=body_bytes_max)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._site: web.TCPSite | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port. Raises AddressProblem."""
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, host, port)
        try:
            await self._site.start()
        except OSError as error:
            raise AddressProblem.listening("HTTP", host, port, error) from error
        bound: int = self._runner.addresses[0][1]
        return bound

    async def drain(self, timeout_s: float) -> bool:
        """Stops listening, refuses new calls on open connections, and waits for those under way. Says whether
        all were answered in time."""
        self._draining = True
        if self._site is not None:
            await self._site.stop()
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Closes every connection."""
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self._calls += 1
        self._idle.clear()
        try:
            return await self._answer(request)
        except Refusal as refusal:
            return self._refused(refusal)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
            logger.opt(exception=error).error("an HTTP call failed in a way that was not foreseen")
            return self._refused(InternalFault())
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle.set()

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        if (page := self._pages.get(path)) is not None:
            return await self._page(page, request)
        if self._draining:
            msg = "the server is stopping: nothing was taken"
            raise Unavailable(msg, 1.0)
        route = self._router.match(request.method, path)
        _check_media_type(request)
        return _response(200, (await route.call(await self._body(request))).encode(), _JSON)

    async def _page(self, page: Page, request: web.Request) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            msg = f"{request.rel_url.raw_path} is not served for {request.method}"
            raise WrongMethod(msg, ("GET", "HEAD"))
        status, content_type, body = await page()
        return _response(status, body, content_type)

    async def _body(self, request: web.Request) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            msg = f"the body is larger than {self._body_bytes_max} bytes (MESSAGE_BYTES_MAX)"
            raise TooLarge(msg) from None
        except web.RequestPayloadError as error:
            msg = f"the body can't be read: {error}"
            raise Invalid(msg) from None

    def _refused(self, refusal: Refusal) -> web.Response:
        response = _response(answer_to(refusal).http, json_of(refusal).encode(), _JSON, headers_of(refusal))
        if self._draining or isinstance(refusal, TooLarge):
            # What is unread of this connection is not worth reading, or will not be served.
            response.force_close()
        return response


def _response(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str] = _NONE
) -> web.Response:
    # Named without a version: aiohttp's own header would tell which mistakes to look for.
    own = {"Content-Type": content_type, "Server": "ingestor"}
    return web.Response(status=status, body=body, headers={**own, **headers})


def _check_media_type(request: web.Request) -> None:
    # aiohttp reads an absent header as application/octet-stream.
    if request.content_type not in _JSON_TYPES:
        msg = f"send application/json, not {request.content_type}"
        raise WrongMediaType(msg)


def json_page(status: int, content: object) -> tuple[int, str, bytes]:
    """What a Page answers with, for JSON content."""
    return status, _JSON, json.dumps(content).encode() + b"\n"
