"""All connections of a grpclib server that can be drained: takes them while there is room, and ends them in order.

grpclib 0.4.9's own close() cancels what is in flight and sends no GOAWAY, so that every deploy would lose calls.
What happens on one connection is not known here, only whether it could make room for another.
"""

from __future__ import annotations

import asyncio
import ssl
import time

from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from ingestor.transport.admission import Gate
from ingestor.transport.bounds import BACKLOG
from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.calls import Calls, Methods
from ingestor.transport.grpc.connection import ClientConnection
from ingestor.transport.grpc.handler import StreamHandler
from ingestor.transport.grpc.keepalive import Patience
from ingestor.transport.grpc.lane import Lanes
from ingestor.transport.observing import Observers
from ingestor.transport.share import Share
from ingestor.transport.tls import listen

# Who is idle for less may be about to call.
_IDLE_LONG_S = 1.0


class DrainableServer(Server):
    """grpclib's server with `drain` before `close`."""

    def __init__(
        self,
        methods: Methods,
        message_bytes_max: int,
        observers: Observers,
        share: Share,
        *,
        lane: bool,
        patience: Patience,
        gate: Gate,
    ) -> None:
        # Its own keepalive knows nothing of the calls in the lane, and asks again after five minutes at best.
        super().__init__([], config=Configuration(_keepalive_time=None))
        self.patience = patience
        # As ASCII, a single other byte in a header would be an exception that ends the whole connection.
        self._h2_config.header_encoding = "latin-1"
        self.share = share
        self.calls = Calls(methods, message_bytes_max, gate)
        self.observers = observers
        # Without methods it takes none, but it still counts frames and answers PINGs.
        self.lanes = Lanes(methods.unary if lane else {}, message_bytes_max, observers, gate)
        self.draining = False
        self.connections: set[ClientConnection] = set()
        self._deserted = asyncio.Event()

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        """As grpclib's `start`, which leaves a TLS handshake a minute, and any number of them. Raises OSError."""
        self._server = await listen(
            self._protocol_factory,
            host,
            port,
            backlog=BACKLOG,
            context=context,
            handshakes_max=self.share.bounds.handshakes_max,
        )
        self._server_closed_fut = self._loop.create_future()

    def bound_port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return port

    @property
    def in_flight(self) -> int:
        """How many calls are under way and still wanted."""
        return sum(connection.in_flight for connection in self.connections)

    async def drain(self, timeout_s: float) -> bool:
        """Stops listening, and ends every connection in order. Says whether all calls were answered in time."""
        self.draining = True
        assert self._server is not None
        self._server.close()
        for connection in tuple(self.connections):
            connection.depart()
        try:
            async with asyncio.timeout(timeout_s):
                while self.connections:
                    self._deserted.clear()
                    await self._deserted.wait()
        except TimeoutError:
            pass
        return not any(connection.open_calls for connection in self.connections)

    async def finish(self) -> None:
        """Cancels what is left and closes every connection."""
        self.close()
        for connection in tuple(self.connections):
            connection.cut_off()
        await self.wait_closed()
        if self.lanes.tasks:
            await asyncio.wait(tuple(self.lanes.tasks))

    def has_room(self) -> bool:
        """Whether one more connection can be served. If need be, one makes room on which nobody known has called
        yet, whatever it does, else one that has long been idle."""
        if len(self.connections) < self.share.bounds.connections_max:
            return True
        before = time.monotonic() - _IDLE_LONG_S
        spare = [connection for connection in self.connections if connection.spare_since < before]
        longest = min(spare, key=lambda each: (each.is_known, each.spare_since), default=None)
        if longest is None:
            return False
        longest.give_way()
        self.connections.discard(longest)
        return True

    def made(self, connection: ClientConnection) -> None:
        """A client has connected."""
        self.__gc_step__()
        self._handlers.add(connection.calls)
        self.connections.add(connection)
        if self.draining:
            connection.depart()

    def lost(self, connection: ClientConnection) -> None:
        """A client is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._deserted.set()

    def _protocol_factory(self) -> H2Protocol:
        share = self.share
        allowance = Allowance(share.bounds, share.bodies(), share.answers())
        handler = StreamHandler(self.calls, self.observers, allowance)
        return ClientConnection(
            self,
            handler,
            lanes=self.lanes,
            share=share,
            patience=self.patience,
            config=self._config,
            h2_config=self._h2_config,
        )
