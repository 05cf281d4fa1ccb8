"""Serves HTTP on aiohttp: one handler for all transcoded routes, and the fixed pages beside it.

Every error leaves as google.rpc.Status in JSON, aiohttp's own included; nothing of our insides leaves.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from loguru import logger

from ingestor.errors import (
    AddressProblem,
    Invalid,
    Refusal,
    TooLarge,
    Unavailable,
    WrongMethod,
)
from ingestor.transport.http.answers import JSON, Page, answer, page_response, refuse
from ingestor.transport.http.bodies import check_headers, is_lost, read_body, unknown_expectation
from ingestor.transport.http.connections import Connections
from ingestor.transport.observing import Observation, Observe, Observers, unobserved
from ingestor.transport.status import InternalFault
from ingestor.transport.transcoding import Router, printable

# How long `close` waits for what is under way, and then again for it to take note.
_CLOSE_S = 1.0


class HttpServer:
    """One listening address. `start`, then `drain` and `close`, once each. Made within a running loop. What
    `observe` gives is told what became of each call; pages are none."""

    def __init__(
        self,
        router: Router,
        pages: dict[str, Page],
        *,
        body_bytes_max: int,
        page_timeout_s: float = 5.0,
        observe: Observe = unobserved,
    ) -> None:
        self._router = router
        self._pages = pages
        self._observers = Observers(observe, "http", router.paths)
        self._body_bytes_max = body_bytes_max
        self._page_timeout_s = page_timeout_s
        self._draining = False
        self._calls = 0
        self._idle = asyncio.Event()  # that the last call has ended, when there are no new ones
        self._runner = web.ServerRunner(Connections(self._handle), shutdown_timeout=_CLOSE_S)
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

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return self._calls

    async def drain(self, timeout_s: float) -> bool:
        """Stops listening, refuses new calls on open connections, and waits for those under way. Says whether
        all were answered in time."""
        self._draining = True
        if self._site is not None:
            await self._site.stop()
        try:
            if self._calls:
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Closes every connection, whatever it is doing."""
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        try:
            return await self._answer(request)
        except Refusal as refusal:
            return self._refused(refusal, request)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
            logger.opt(exception=error).error("an HTTP call failed in a way that was not foreseen")
            return self._refused(InternalFault(), request)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if expectation := unknown_expectation(request):
            msg = f"only 100-continue can be expected, not {printable(expectation)}"
            return self._refused(Invalid(msg), request, status=417)
        if (page := self._pages.get(request.rel_url.raw_path)) is not None:
            # Not a call: a probe that hangs holds up no drain.
            return await self._page(page, request)
        self._calls += 1
        try:
            with Observation(self._observers) as observation:
                return await self._call(request, observation)
        finally:
            self._calls -= 1
            if self._draining and not self._calls:
                self._idle.set()

    async def _page(self, page: Page, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        if request.method not in ("GET", "HEAD"):
            msg = f"{path} is not served for {request.method}"
            raise WrongMethod(msg, ("GET", "HEAD"))
        try:
            async with asyncio.timeout(self._page_timeout_s):
                return page_response(await page(), request.headers.get("If-None-Match"))
        except TimeoutError:
            msg = f"{path} did not answer in time"
            raise Unavailable(msg, 1.0) from None

    async def _call(self, request: web.BaseRequest, observation: Observation) -> web.Response:
        route = self._router.match(request.method, request.rel_url.raw_path)
        observation.path = route.rpc.path
        if self._draining:
            msg = "the server is stopping: nothing was taken"
            raise Unavailable(msg, 1.0)
        check_headers(request)
        body = await read_body(request, self._body_bytes_max)
        return answer(200, JSON, (await route.call(body)).encode())

    def _refused(self, refusal: Refusal, request: web.BaseRequest, status: int | None = None) -> web.Response:
        response = refuse(refusal, status)
        if self._draining or isinstance(refusal, TooLarge) or is_lost(request):
            # What is unread of this connection is not worth reading, or will not be served.
            response.force_close()
        return response
