"""aiohttp's connections, with what they say and log by themselves mended.

What is no HTTP request never reaches a handler; aiohttp answers it in plain text, under its own name and version,
and logs an ERROR with a traceback, so that a port scan fills the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, InvalidHeader, InvalidURLError, LineTooLong
from aiohttp.web_protocol import _ErrInfo
from loguru import logger

from ingestor.errors import Invalid
from ingestor.transport.http.answers import refuse
from ingestor.transport.status import InternalFault
from ingestor.transport.tls import listening
from ingestor.transport.transcoding import printable

# Where aiohttp's own message repeats what was sent.
_REASONS: dict[type[HttpProcessingError], str] = {
    LineTooLong: "its first line or a header is too long",
    InvalidHeader: "a header is malformed",
    InvalidURLError: "its target is no URL",
}


class Connections(web.Server):
    """All connections of one server; each request goes to `handler`. Made within a running loop."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        # Who is gone waits for nothing: its call ends as one over gRPC does.
        super().__init__(handler, handler_cancellation=True)

    def __call__(self) -> web.RequestHandler:
        """A protocol for a new connection. Bodies come as they were sent: what aiohttp inflates it does not check
        to the end."""
        loop = asyncio.get_running_loop()
        return _Connection(self, loop=loop, access_log=None, auto_decompress=False)  # type: ignore[arg-type] # no log


class Site(web.TCPSite):
    """Where they come in. aiohttp's own leaves a TLS handshake a minute."""

    async def start(self) -> None:
        """Listens. Raises OSError."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            server, self._host, self._port, backlog=self._backlog, **listening(self._ssl_context)
        )


class _Connection(web.RequestHandler):
    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Lets whoever waits for the rest of a body know that none will come: aiohttp would have them wait for as
        long as the client stays."""
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            for body in self._unfinished_bodies():
                body.set_exception(web.RequestPayloadError())

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
            refusal = Invalid(f"not a readable HTTP request: {_reason(exc)}")
            logger.debug("{} sent what is {}", request.remote, refusal.message)
            response = refuse(refusal)
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
        if isinstance(error, ConnectionError | HttpProcessingError | web.RequestPayloadError):
            logger.debug("an HTTP connection ended early: {}", type(error).__name__)
        else:
            logger.opt(exception=error).error("an HTTP connection failed in a way that was not foreseen")


def _reason(error: HttpProcessingError) -> str:
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    # What was sent follows on further lines.
    return printable(error.message.partition("\n")[0].rstrip(":."))
