"""Serves HTTP on aiohttp: one handler for all transcoded routes, and the fixed pages beside it.

Every error leaves as google.rpc.Status in JSON, aiohttp's own included; nothing of our insides leaves.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from aiohttp import hdrs, web
from loguru import logger

from ingestor.caller import CALLER
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
from ingestor.transport.admission import OPEN, Gate
from ingestor.transport.bounds import DEFAULT, HEADER_BYTES_MAX
from ingestor.transport.http.answers import (
    begun,
    compress,
    json_answer,
    nothing,
    refuse,
    worth_compressing,
)
from ingestor.transport.http.bodies import (
    body_at_hand,
    coding_of,
    decoded,
    is_lost,
    read_body,
    unknown_expectation,
)
from ingestor.transport.http.connections import Connections, Site, entrance, has_to_end, too_many_headers
from ingestor.transport.http.cors import Cors, is_preflight
from ingestor.transport.http.entrance import Header
from ingestor.transport.http.metadata import received, sent, sifted
from ingestor.transport.http.pages import Page, page_response
from ingestor.transport.http.streams import Gone, Streamed
from ingestor.transport.looking_after import LookedAfter, look_after
from ingestor.transport.observing import CANCELLED, Observation, Observe, Observers, unobserved
from ingestor.transport.share import Share
from ingestor.transport.status import InternalFault, answer_to, headers_of
from ingestor.transport.streams import Closing, run
from ingestor.transport.timeouts import seconds_of
from ingestor.transport.transcoding import Matched, Route, Router, printable

# How long `close` waits for what is under way, and then again for it to take note.
_CLOSE_S = 1.0

_GRPC_TIMEOUT = "Grpc-Timeout"

_PAGE_METHODS = ("GET", "HEAD", "OPTIONS")

_STRAY = "what the method waited for was cancelled"

Target = Route | Matched


class HttpServer:
    """One listening address. `start`, then `drain` and `close`, once each. Made within a running loop. What
    `observe` gives is told what became of each call; pages are none. `gate` lets calls in, and requests for
    pages. Raises ValueError for a route where a page is."""

    def __init__(
        self,
        router: Router,
        pages: dict[str, Page],
        *,
        body_bytes_max: int,
        page_timeout_s: float = 5.0,
        observe: Observe = unobserved,
        cors_origins: Iterable[str] = (),
        gate: Gate = OPEN,
        share: Share | None = None,
    ) -> None:
        router.keep_off(pages)
        self._router = router
        self._pages = pages
        self._observers = Observers(observe, "http", router.paths)
        self._body_bytes_max = body_bytes_max
        self._page_timeout_s = page_timeout_s
        self._cors = Cors(cors_origins)
        self._draining = False
        self._closing = Closing()
        self._calls = 0
        self._idle = asyncio.Event()  # that the last call has ended, when there are no new ones
        self._share = share or Share(DEFAULT)
        self._connections = Connections(self._handle, self._share, gate)
        self._runner = web.ServerRunner(self._connections, shutdown_timeout=_CLOSE_S)
        self._looking: asyncio.Task[None] | None = None
        self._site: web.TCPSite | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listens, over TLS when there is a context; returns the port. Raises AddressProblem."""
        await self._runner.setup()
        self._site = Site(self._runner, host, port, ssl_context=context)
        try:
            await self._site.start()
        except OSError as error:
            raise AddressProblem.listening("HTTP", host, port, error) from error
        self._looking = asyncio.create_task(
            look_after(self._looked_after, self._share.bounds.shortest_s), name="http-connections"
        )
        bound: int = self._runner.addresses[0][1]
        return bound

    def _looked_after(self) -> list[LookedAfter]:
        return [self._closing, *self._connections.looked_after()]

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return self._calls

    async def drain(self, timeout_s: float) -> bool:
        """Stops listening, refuses new calls on open connections, and waits for those under way. Says whether
        all were answered in time."""
        self._draining = True
        self._closing.begin()
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
        if self._looking is not None:
            self._looking.cancel()
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._answer(request)
        except Refusal as refusal:
            response = self._refused(refusal, request)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
            logger.opt(exception=error).error("an HTTP call failed in a way that was not foreseen")
            response = self._refused(InternalFault(), request)
        if not response.prepared:
            self._dress(response, request)
            if hdrs.EXPECT in request.headers and not request.content.at_eof():
                # Whether a body follows that nobody asked for can't be told.
                response.force_close()
            if has_to_end(request):
                response.force_close()
            if worth_compressing(response):
                await compress(response, request.headers.get("Accept-Encoding"))
        return response

    def _dress(self, response: web.StreamResponse, request: web.BaseRequest) -> None:
        """Adds the headers that don't depend on what is answered."""
        if (metadata := METADATA.get()) is not None and metadata.sent:
            response.headers.extend(sent(metadata.sent))
        if self._cors.origins:
            _let_read(response, request, self._cors)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        size, carried = sifted(request.raw_headers)
        if size > HEADER_BYTES_MAX:
            return self._refused(too_many_headers(), request, status=431)
        if hdrs.EXPECT in request.headers and (expectation := unknown_expectation(request)):
            msg = f"only 100-continue can be expected, not {printable(expectation)}"
            return self._refused(Invalid(msg), request, status=417)
        path = request.rel_url.raw_path
        if self._cors.origins and is_preflight(request.method, request.headers):
            allowed = _PAGE_METHODS if path in self._pages else self._router.allowed(path)
            return nothing(self._cors.preflight(request.headers, allowed))
        if (page := self._pages.get(path)) is not None:
            # Not a call: a probe that hangs holds up no drain.
            return await self._page(page, request, path, carried)
        self._calls += 1
        observation = Observation(self._observers)
        try:
            return await self._call(request, path, carried, observation)
        except BaseException as error:
            observation.failed(error)
            raise
        finally:
            observation.end()
            self._calls -= 1
            if self._draining and not self._calls:
                self._idle.set()

    async def _page(
        self, page: Page, request: web.BaseRequest, path: str, carried: Sequence[Header]
    ) -> web.Response:
        if request.method == "OPTIONS":
            return nothing({"Allow": ", ".join(_PAGE_METHODS)})
        if request.method not in _PAGE_METHODS:
            msg = f"{path} is not served for {request.method}"
            raise WrongMethod(msg, _PAGE_METHODS)
        CALLER.set(entrance(request).enter(path, carried, received(carried)))
        try:
            async with asyncio.timeout(self._page_timeout_s):
                given = request.headers
                return await page_response(
                    await page(), given.get("If-None-Match"), given.get("Accept-Encoding")
                )
        except TimeoutError:
            msg = f"{path} did not answer in time"
            raise Unavailable(msg, 1.0) from None

    async def _call(
        self, request: web.BaseRequest, path: str, carried: Sequence[Header], observation: Observation
    ) -> web.StreamResponse:
        try:
            target = self._router.match(request.method, path)
        except WrongMethod as wrong:
            if request.method == "OPTIONS":
                return nothing(headers_of(wrong))
            raise
        observation.path = target.rpc.path
        self._cors.refuse(request.method, request.headers)
        if self._draining:
            msg = "the server is stopping: nothing was taken"
            raise Unavailable(msg, 1.0)
        metadata = received(carried)
        METADATA.set(CallMetadata(metadata))  # each request has a task of its own
        # Before anything of the body is read.
        CALLER.set(entrance(request).enter(target.rpc.path, carried, metadata))
        if target.rpc.streams:
            return await self._stream(target, request, observation)
        said = request.headers.get(_GRPC_TIMEOUT)
        if said is None:
            return await self._run(target, request)
        async with _in_time(said):
            return await self._run(target, request)

    async def _stream(
        self, target: Target, request: web.BaseRequest, observation: Observation
    ) -> web.StreamResponse:
        """Answers with lines as they come. What fails before the first has its own status; later it is the last
        line."""
        if request.method == "HEAD":
            return begun()
        call = Streamed(target, request, self._body_bytes_max, self._share, self._dress)
        try:
            if (refusal := await self._run_stream(call, target, request)) is not None:
                observation.code = answer_to(refusal).code
                await call.fail(refusal)
            return await call.end()
        except Gone:
            observation.code = CANCELLED
            return call.response

    async def _run_stream(self, call: Streamed, target: Target, request: web.BaseRequest) -> Refusal | None:
        """Returns what is to be told in a last line, and raises what comes before the first, or Gone."""
        try:
            async with _in_time(request.headers.get(_GRPC_TIMEOUT)), _cancelled_with_us():
                await run(target.rpc, call.requests(self._closing), call.send, self._closing)
        except Gone:
            raise
        except Exception as error:
            if not call.response.prepared:
                raise
            if isinstance(error, Refusal):
                return error
            logger.opt(exception=error).error("an HTTP call failed in a way that was not foreseen")
            return InternalFault()
        return None

    async def _run(self, target: Target, request: web.BaseRequest) -> web.Response:
        coding = coding_of(request) if target.takes_body or request.body_exists else ""
        body = body_at_hand(request, self._body_bytes_max)
        if body is None:
            body = await read_body(request, self._body_bytes_max, self._share)
        if coding:
            body = await decoded(body, coding, self._body_bytes_max)
        try:
            text = await target.call(body, request.rel_url.raw_query_string)
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            raise RuntimeError(_STRAY) from error
        return json_answer(text)

    def _refused(self, refusal: Refusal, request: web.BaseRequest, status: int | None = None) -> web.Response:
        response = refuse(refusal, status)
        unread = not request.content.at_eof()
        if self._draining or unread or isinstance(refusal, TooLarge) or is_lost(request):
            # What is unread of this connection is not worth reading, or will not be served.
            response.force_close()
        return response


@asynccontextmanager
async def _in_time(said: str | None) -> AsyncIterator[None]:
    """Raises TooLate when the time that the caller gives is over before the end of the context."""
    if said is None:
        yield
        return
    scope = asyncio.timeout(seconds_of(said))
    CALLER_SAYS.set(True)
    try:
        async with scope:
            await asyncio.sleep(0)  # with no time left, nothing is begun
            yield
    except TimeoutError:
        if scope.expired():
            msg = "the deadline passed before the call was answered"
            raise TooLate(msg) from None
        raise


@asynccontextmanager
async def _cancelled_with_us() -> AsyncIterator[None]:
    """A cancellation that isn't this call's is a mistake like any other."""
    try:
        yield
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        raise RuntimeError(_STRAY) from error


def _is_cancelled() -> bool:
    """Whether it is this call that is being cancelled, and not something that its method awaited."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _let_read(response: web.StreamResponse, request: web.BaseRequest, cors: Cors) -> None:
    """Lets the page that asked read the response, in a browser."""
    exposed = [
        name for name in response.headers if name == "Retry-After" or name.startswith("Grpc-Metadata-")
    ]
    response.headers.update(cors.headers(request.headers.get("Origin"), exposed))
    if not cors.any:
        response.headers.add("Vary", "Origin")
