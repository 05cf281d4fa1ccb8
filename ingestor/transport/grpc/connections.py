"""A grpclib server that can be drained: GOAWAY to every client, calls under way answered, new ones refused.

grpclib 0.4.9's own close() cancels what is in flight and sends no GOAWAY, so that every deploy would lose
calls. Clients send a refused stream again by themselves, because it was never processed (RFC 9113, 8.7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from grpclib.protocol import H2Protocol
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Handler, Server
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame


class DrainableServer(Server):
    """grpclib's server with `drain` before `close`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.draining = False
        self.connections: set[_Connection] = set()

    def bound_port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return port

    async def drain(self, timeout_s: float) -> bool:
        """Stops listening, says GOAWAY, and waits for the calls under way. Says whether all were answered in
        time."""
        self.draining = True
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            connection.go_away()
        calls = [task for handler in self._handlers for task in handler._tasks.values() if not task.done()]
        if not calls:
            return True
        _, unanswered = await asyncio.wait(calls, timeout=timeout_s)
        return not unanswered

    async def finish(self) -> None:
        """Cancels what is left and closes every connection."""
        self.close()
        for connection in list(self.connections):
            connection.connection.close()
        await self.wait_closed()

    def _protocol_factory(self) -> H2Protocol:
        self.__gc_step__()
        handler = _Handler(self)
        self._handlers.add(handler)
        return _Connection(self, handler)


class _Handler(Handler):
    """Refuses streams that come after GOAWAY."""

    def __init__(self, server: DrainableServer) -> None:
        super().__init__(server._mapping, server._codec, server._status_details_codec, server.__dispatch__)
        self._server = server

    def accept(
        self, stream: H2Stream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]
    ) -> None:
        if self._server.draining:
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
            release_stream()
        else:
            super().accept(stream, headers, release_stream)


class _Connection(H2Protocol):
    """One client's connection, known to the server for as long as it is open."""

    def __init__(self, server: DrainableServer, handler: Handler) -> None:
        super().__init__(handler, server._config, server._h2_config)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.connections.add(self)
        if self._server.draining:
            self.go_away()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.connections.discard(self)
        super().connection_lost(exc)

    def go_away(self) -> None:
        """Tells the client which stream was the last that we took. Written past h2, whose close_connection()
        would forbid us to answer the streams that are open."""
        if self.connection.is_closing():
            return
        last = self.connection._connection.highest_inbound_stream_id
        frame = GoAwayFrame(stream_id=0, last_stream_id=last, error_code=ErrorCodes.NO_ERROR)
        self.connection.flush()
        self.connection._transport.write(frame.serialize())
