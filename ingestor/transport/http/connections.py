"""aiohttp's connections, with what they say and log by themselves mended.

What is no HTTP request never reaches a handler; aiohttp answers it in plain text, under its own name and version,
and logs an ERROR with a traceback, so that a port scan fills the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, InvalidHeader, InvalidURLError, LineTooLong
from aiohttp.web_protocol import _ErrInfo
from loguru import logger

from ingestor.errors import Invalid, Refusal, SentTooSlowly, TooLarge, Unavailable
from ingestor.transport.admission import OPEN, Gate
from ingestor.transport.bounds import BACKLOG, HEADER_BYTES_MAX
from ingestor.transport.holding import Held
from ingestor.transport.http.answers import JSON, refuse
from ingestor.transport.http.entrance import Entrance
from ingestor.transport.share import Share
from ingestor.transport.stalls import Stall
from ingestor.transport.status import InternalFault, json_of
from ingestor.transport.tls import listen, peer_names
from ingestor.transport.transcoding import printable

# Two numbers, to tell by: aiohttp says no more of what is too long.
_LINE_BYTES_MAX, _FIELD_BYTES_MAX = 8192, 8190
_HEADERS_MAX = 128  # aiohttp's own
_TOO_MANY = "Too many headers received"
# Who is idle for less may be about to ask for something.
_IDLE_LONG_S = 1.0
# What a client has to read why its connection ends.
_LAST_WORD_S = 2.0
_LINGER_BUFFER_BYTES = 2**16
# What may be wrapped around a body beyond its own size.
_WRAPPING_BYTES_MAX = 2**20

# Where aiohttp's own message repeats what was sent.
_REASONS: dict[type[HttpProcessingError], str] = {
    InvalidHeader: "a header is malformed",
    InvalidURLError: "its target is no URL",
}


class Connections(web.Server):
    """All connections of one server; each request goes to `handler`. Made within a running loop."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        share: Share,
        gate: Gate = OPEN,
    ) -> None:
        # Who is gone waits for nothing: its call ends as one over gRPC does.
        super().__init__(handler, handler_cancellation=True)
        self.share = share
        self.gate = gate

    def __call__(self) -> web.RequestHandler:
        """A protocol for a new connection. Bodies come as they were sent: what aiohttp inflates it does not check
        to the end."""
        loop = asyncio.get_running_loop()
        return _Connection(
            self,
            loop=loop,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=self.share.bounds.idle_s,
            lingering_time=_LAST_WORD_S,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_FIELD_BYTES_MAX,
        )

    def looked_after(self) -> list[_Connection]:
        """Those that are open."""
        return [connection for connection in self._connections if isinstance(connection, _Connection)]

    def has_room(self) -> bool:
        """Whether one more connection can be served. If need be, one that has long been idle makes room."""
        if len(self._connections) < self.share.bounds.connections_max:
            return True
        idle = [connection for connection in self.looked_after() if connection.is_idle]
        longest = min(idle, key=lambda connection: connection.idle_since, default=None)
        if longest is None or time.monotonic() - longest.idle_since < _IDLE_LONG_S:
            return False
        self.share.cut_off("http", "too_many")
        longest.force_close()
        return True


class Site(web.TCPSite):
    """Where they come in. aiohttp's own leaves a TLS handshake a minute, and any number of them."""

    async def start(self) -> None:
        """Listens. Raises OSError."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert isinstance(server, Connections)
        self._server = await listen(
            server,
            self._host,
            self._port,
            backlog=BACKLOG,
            context=self._ssl_context,
            handshakes_max=server.share.bounds.handshakes_max,
        )


class _Connection(web.RequestHandler):
    __slots__ = (
        "_age_s",
        "_deaf",
        "_entrance",
        "_head_bytes",
        "_head_since",
        "_made_at",
        "_share",
        "_stall",
        "_unread",
        "_wire_bytes",
    )

    def __init__(self, manager: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._share = manager.share
        self._age_s = manager.share.age_s()
        self._entrance: Entrance | None = None  # once it is made
        self._stall = Stall(manager.share.bounds.send_timeout_s)
        self._unread: Held | None = None  # what the client leaves so, when that is much
        self._made_at = time.monotonic()
        # Since when the head of a request is waited for, of which so many bytes have come.
        self._head_since: float | None = self._made_at
        self._head_bytes = 0
        self._wire_bytes = 0  # what has come of a request's body, chunked as it came
        self._deaf = False  # the rest of what is sent is thrown away

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def idle_since(self) -> float:
        """When it was made, or its last request was answered."""
        return max(self._made_at, self._next_keepalive_close_time - self._keepalive_timeout)

    @property
    def is_old(self) -> bool:
        """Whether it has to end with its next answer."""
        return bool(self._age_s) and time.monotonic() - self._made_at > self._age_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serves the client, or says at once that there are too many."""
        assert isinstance(self._manager, Connections)
        if self._manager.has_room():
            self._entrance = Entrance(self._manager.gate, peer_names(transport))
            super().connection_made(transport)
            return
        self._share.cut_off("http", "too_many")
        self._manager = None
        refused = cast("asyncio.Transport", transport)
        refused.write(_too_many_connections())
        refused.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._read_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Lets whoever waits for the rest of a body know that none will come, where aiohttp would have them wait
        for as long as the client stays; and notes what has come of a request's head."""
        if self._deaf:
            return
        before = self._request_count
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._linger(self._messages.pop()[0])
            for body in self._unfinished_bodies():
                body.set_exception(web.RequestPayloadError())
        elif not data and self._request_count == before:
            return  # aiohttp asks its parser for more after each request, and there was none
        elif self._request_count == before and (self.is_idle or not before):
            # The first bytes may come before aiohttp waits for them.
            self._head_bytes += len(data)
            if self._head_since is None:
                self._head_since = time.monotonic()
            if self._head_bytes > HEADER_BYTES_MAX:
                self._refuse(too_many_headers(), 431)
        else:
            self._head_since, self._head_bytes = None, 0
            self._reckon(len(data), begins=self._request_count != before)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        if self.transport is not None:
            self._unread = self._share.unread.begin(partial(self._abort_unread, self.transport))
            self._unread.grow(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It does again."""
        self._read_again()
        super().resume_writing()

    def check(self, now: float) -> None:
        """Ends it when its client takes too long: to say what it wants, or to read what it is told."""
        transport = self.transport
        if transport is None:
            return
        if self._stall.is_over(now, transport.get_write_buffer_size() if self._paused else None):
            logger.debug("a client is cut off: it does not read")
            self._abort_unread(transport)
        elif self.is_idle and self._head_since is not None:
            limit_s = self._share.bounds.header_timeout_s
            if now - self._head_since <= limit_s:
                return
            self._share.cut_off("http", "slow")
            if self._head_bytes:
                self._refuse(
                    SentTooSlowly(f"the head of the request did not come whole within {limit_s:g}s"), 408
                )
            else:
                self.force_close()

    def _abort_unread(self, transport: asyncio.Transport) -> None:
        self._share.cut_off("http", "unread")
        transport.abort()

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.end()
            self._unread = None

    def _refuse(self, refusal: Refusal, status: int) -> None:
        """Answers the request of which the head has begun, and ends."""
        self._linger(_ErrInfo(status=status, exc=_Refused(refusal, status), message=""))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _linger(self, message: Any) -> None:
        """Lets this be answered, and reads on for a while: to close a socket with something unread in it makes the
        kernel send a reset, which overtakes the answer."""
        self._deaf = True
        self._messages.append((message, StreamReader(self, _LINGER_BUFFER_BYTES, loop=self._loop)))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """The same, and our side ends with what is our last word."""
        finished = await super().finish_response(request, resp, start_time)
        if (
            self._deaf
            and not self._messages
            and self.transport is not None
            and self.transport.can_write_eof()
        ):
            with suppress(OSError):  # the client was faster
                self.transport.write_eof()
        return finished

    def _reckon(self, size: int, *, begins: bool) -> None:
        """So many bytes more of a body. What wraps it up in chunks may be as long as what is in them, and more:
        else a client could send for ever, and never too much."""
        bodies = self._unfinished_bodies()
        self._wire_bytes = self._wire_bytes + size if bodies and not begins else 0
        for body in bodies:
            if self._wire_bytes > 2 * body.total_bytes + _WRAPPING_BYTES_MAX:
                self._deaf = True
                body.set_exception(TooLarge("the body comes in chunks that are too small, or say too much"))

    def _unfinished_bodies(self) -> list[StreamReader]:
        bodies = [body for _, body in self._messages]
        if self._current_request is not None:
            bodies.append(self._current_request.content)
        return [body for body in bodies if not body.is_eof()]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what could not be read as a request, and what a handler raised; the connection ends with it."""
        if isinstance(exc, HttpProcessingError):
            refusal, fitting = _told(exc)
            logger.debug("{} sent what is no request: {}", request.remote, refusal.message)
            response = refuse(refusal, fitting)
        else:
            self.log_exception("an HTTP call failed in a way that was not foreseen", exc_info=exc)
            response = refuse(InternalFault())
        if request.writer.output_size > 0:
            msg = "an answer has begun already"
            raise ConnectionError(msg)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Logs what ended this connection: at DEBUG when it was the client's doing."""
        error = kw.get("exc_info")
        if isinstance(error, ConnectionError | HttpProcessingError | web.RequestPayloadError | TooLarge):
            logger.debug("an HTTP connection ended early: {}", type(error).__name__)
        else:
            logger.opt(exception=error).error("an HTTP connection failed in a way that was not foreseen")


class _Refused(HttpProcessingError):
    """Where we refuse what aiohttp would go on reading."""

    def __init__(self, refusal: Refusal, status: int) -> None:
        super().__init__(code=status)
        self.refusal = refusal


def entrance(request: web.BaseRequest) -> Entrance:
    """Where the calls of this request's connection come in."""
    connection = request.protocol
    assert isinstance(connection, _Connection)
    assert connection._entrance is not None
    return connection._entrance


def too_many_headers() -> TooLarge:
    """The headers of a request are too large."""
    return TooLarge(
        f"the request's headers are too large: {_FIELD_BYTES_MAX} bytes each, {_HEADERS_MAX} of them and"
        f" {HEADER_BYTES_MAX} bytes in all at most"
    )


def has_to_end(request: web.BaseRequest) -> bool:
    """Whether the connection of this request has reached its age."""
    return isinstance(request.protocol, _Connection) and request.protocol.is_old


def _too_many_connections() -> bytes:
    body = json_of(Unavailable("too many connections (CONNECTIONS_MAX)", 1.0)).encode()
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nServer: ingestor\r\nContent-Type: {JSON}\r\nRetry-After: 1\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _told(error: HttpProcessingError) -> tuple[Refusal, int | None]:
    """What the caller is told, and the status where HTTP has a closer one than the table of all protocols."""
    if isinstance(error, _Refused):
        return error.refusal, error.code
    if isinstance(error, LineTooLong) and error.args[1] == _LINE_BYTES_MAX:
        return TooLarge(f"the request's target is too long, {_LINE_BYTES_MAX} bytes at most"), 414
    if isinstance(error, LineTooLong) or error.message == _TOO_MANY:
        return too_many_headers(), 431
    return Invalid(f"not a readable HTTP request: {_reason(error)}"), None


def _reason(error: HttpProcessingError) -> str:
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    # What was sent follows on further lines.
    return printable(error.message.partition("\n")[0].rstrip(":."))
