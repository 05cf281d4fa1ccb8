"""Serves rpcs over gRPC on one listening address."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from ingestor.errors import AddressProblem
from ingestor.transport.admission import OPEN, Gate
from ingestor.transport.bounds import DEFAULT
from ingestor.transport.grpc.calls import Methods
from ingestor.transport.grpc.connections import DrainableServer
from ingestor.transport.grpc.keepalive import Patience
from ingestor.transport.looking_after import look_after
from ingestor.transport.observing import Observe, Observers, unobserved
from ingestor.transport.rpc import Rpc
from ingestor.transport.share import Share


class GrpcServer:
    """The server. `start`, then `drain` and `close`, once each. Without `lane`, every call goes grpclib's way.
    What `observe` gives is told what became of each call; `gate` lets them in. Clients that are silent for longer
    than `patience` allows are gone; `share` are the bounds of all connections."""

    def __init__(
        self,
        rpcs: Sequence[Rpc],
        *,
        message_bytes_max: int,
        lane: bool = True,
        observe: Observe = unobserved,
        patience: Patience = Patience(),  # noqa: B008 - it can't be changed
        gate: Gate = OPEN,
        share: Share | None = None,
    ) -> None:
        self._gate = gate
        self._methods = Methods(rpcs)
        self._message_bytes_max = message_bytes_max
        self._lane = lane
        self._patience = patience
        self._observers = Observers(observe, "grpc", [rpc.path for rpc in rpcs])
        self._share = share or Share(DEFAULT)
        self._server: DrainableServer | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listens, over TLS when there is a context; returns the port. Raises AddressProblem."""
        server = DrainableServer(
            self._methods,
            self._message_bytes_max,
            self._observers,
            self._share,
            lane=self._lane,
            patience=self._patience,
            gate=self._gate,
        )
        try:
            await server.listen(host, port, context)
        except OSError as error:
            raise AddressProblem.listening("gRPC", host, port, error) from error
        self._server = server
        self._looking = asyncio.create_task(
            look_after(lambda: server.connections, self._share.bounds.shortest_s), name="grpc-connections"
        )
        return server.bound_port()

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return 0 if self._server is None else self._server.in_flight

    async def drain(self, timeout_s: float) -> bool:
        """Says GOAWAY, answers the unary calls under way and ends the streams, as `streams` says. Says whether all
        were answered in time."""
        return self._server is None or await self._server.drain(timeout_s)

    async def close(self) -> None:
        """Closes every connection."""
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            await self._server.finish()
