"""Serves HTTP on aiohttp: one handler for all transcoded routes, and the fixed pages beside it.

Every error leaves as google.rpc.Status in JSON, aiohttp's own included; nothing of our insides leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from loguru import logger

from ingestor.deadline import CALLER_SAYS
from ingestor.errors import (
    AddressProblem,
    Invalid,
    Refusal,
    TooLarge,
    TooLate,
    Unavailable,
    WrongMethod,
)
from ingestor.metadata import METADATA, CallMetadata
from ingestor.transport.http.answers import JSON, answer, compress, nothing, refuse, worth_compressing
from ingestor.transport.http.bodies import coding_of, decoded, is_lost, read_body, unknown_expectation
from ingestor.transport.http.connections import Connections
from ingestor.transport.http.cors import Cors, is_preflight
from ingestor.transport.http.metadata import received, sent
from ingestor.transport.status import InternalFault, headers_of
from ingestor.transport.timeouts import seconds_of
from ingestor.transport.transcoding import Matched, Route, Router, printable

# How long `close` waits for what is under way, and then again for it to take note.
_CLOSE_S = 1.0

_PAGE_METHODS = ("GET", "HEAD", "OPTIONS")

Target = Route | Matched

Page = Callable[[], Awaitable[tuple[int, str, bytes]]]
"""A fixed page: answers with status, content type and body."""


class HttpServer:
    """One listening address. `start`, then `drain` and `close`, once each. Made within a running loop."""

    def __init__(
        self,
        router: Router,
        pages: dict[str, Page],
        *,
        body_bytes_max: int,
        page_timeout_s: float = 5.0,
        cors_origins: Iterable[str] = (),
    ) -> None:
        self._router = router
        self._pages = pages
        self._body_bytes_max = body_bytes_max
        self._page_timeout_s = page_timeout_s
        origins = tuple(cors_origins)
        self._cors = Cors(origins) if origins else None
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
            response = await self._answer(request)
        except Refusal as refusal:
            response = self._refused(refusal, request)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
            logger.opt(exception=error).error("an HTTP call failed in a way that was not foreseen")
            response = self._refused(InternalFault(), request)
        if (metadata := METADATA.get()) is not None and metadata.sent:
            response.headers.extend(sent(metadata.sent))
        if self._cors is not None:
            _let_read(response, request, self._cors)
        if worth_compressing(response):
            await compress(response, request.headers.get("Accept-Encoding"))
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if expectation := unknown_expectation(request):
            msg = f"only 100-continue can be expected, not {printable(expectation)}"
            return self._refused(Invalid(msg), request, status=417)
        path = request.rel_url.raw_path
        if self._cors is not None and is_preflight(request.method, request.headers):
            allowed = _PAGE_METHODS if path in self._pages else self._router.allowed(path)
            return nothing(self._cors.preflight(request.headers, allowed))
        if (page := self._pages.get(path)) is not None:
            # Not a call: a probe that hangs holds up no drain.
            return await self._page(page, request)
        self._calls += 1
        try:
            return await self._call(request)
        finally:
            self._calls -= 1
            if self._draining and not self._calls:
                self._idle.set()

    async def _page(self, page: Page, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        if request.method == "OPTIONS":
            return nothing({"Allow": ", ".join(_PAGE_METHODS)})
        if request.method not in _PAGE_METHODS:
            msg = f"{path} is not served for {request.method}"
            raise WrongMethod(msg, _PAGE_METHODS)
        try:
            async with asyncio.timeout(self._page_timeout_s):
                return answer(*await page())
        except TimeoutError:
            msg = f"{path} did not answer in time"
            raise Unavailable(msg, 1.0) from None

    async def _call(self, request: web.BaseRequest) -> web.Response:
        if self._draining:
            msg = "the server is stopping: nothing was taken"
            raise Unavailable(msg, 1.0)
        try:
            target = self._router.match(request.method, request.rel_url.raw_path)
        except WrongMethod as wrong:
            if request.method == "OPTIONS":
                return nothing(headers_of(wrong))
            raise
        METADATA.set(CallMetadata(received(request.raw_headers)))  # each request has a task of its own
        said = request.headers.get("Grpc-Timeout")
        text = await (self._run(target, request) if said is None else self._in_time(said, target, request))
        return answer(200, JSON, text.encode())

    async def _in_time(self, said: str, target: Target, request: web.BaseRequest) -> str:
        """Raises TooLate when the time that the caller gives is over before there is an answer."""
        scope = asyncio.timeout(seconds_of(said))
        CALLER_SAYS.set(True)
        try:
            async with scope:
                await asyncio.sleep(0)  # with no time left, nothing is begun
                return await self._run(target, request)
        except TimeoutError:
            if scope.expired():
                msg = "the deadline passed before the call was answered"
                raise TooLate(msg) from None
            raise

    async def _run(self, target: Target, request: web.BaseRequest) -> str:
        coding = coding_of(request) if target.takes_body or request.body_exists else ""
        body = await read_body(request, self._body_bytes_max)
        if coding:
            body = await decoded(body, coding, self._body_bytes_max)
        try:
            return await target.call(body, request.rel_url.raw_query_string)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            msg = "what the method waited for was cancelled"
            raise RuntimeError(msg) from error

    def _refused(self, refusal: Refusal, request: web.BaseRequest, status: int | None = None) -> web.Response:
        response = refuse(refusal, status)
        if self._draining or isinstance(refusal, TooLarge) or is_lost(request):
            # What is unread of this connection is not worth reading, or will not be served.
            response.force_close()
        return response


def _is_cancelled() -> bool:
    """Whether it is this call that is being cancelled, and not something that its method awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _let_read(response: web.Response, request: web.BaseRequest, cors: Cors) -> None:
    """Lets the page that asked read the response, in a browser."""
    exposed = [
        name for name in response.headers if name == "Retry-After" or name.startswith("Grpc-Metadata-")
    ]
    response.headers.update(cors.headers(request.headers.get("Origin"), exposed))
    if not cors.any:
        response.headers.add("Vary", "Origin")
