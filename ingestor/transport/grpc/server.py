"""Serves rpcs over gRPC on one listening address."""

from __future__ import annotations

from collections.abc import Iterable

from ingestor.errors import AddressProblem
from ingestor.transport.grpc.calls import Method, Receive
from ingestor.transport.grpc.connections import DrainableServer
from ingestor.transport.grpc.framing import read_request
from ingestor.transport.rpc import Rpc


class GrpcServer:
    """The server. `start`, then `drain` and `close`, once each."""

    def __init__(self, rpcs: Iterable[Rpc], *, message_bytes_max: int) -> None:
        self._rpcs = tuple(rpcs)
        self._message_bytes_max = message_bytes_max
        self._server: DrainableServer | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port. Raises AddressProblem."""
        server = DrainableServer({rpc.path: self._method(rpc) for rpc in self._rpcs})
        try:
            await server.start(host, port)
        except OSError as error:
            raise AddressProblem.listening("gRPC", host, port, error) from error
        self._server = server
        return server.bound_port()

    async def drain(self, timeout_s: float) -> bool:
        """Says GOAWAY and answers the calls under way. Says whether all were answered in time."""
        return self._server is None or await self._server.drain(timeout_s)

    async def close(self) -> None:
        """Closes every connection."""
        if self._server is not None:
            await self._server.finish()

    def _method(self, rpc: Rpc) -> Method:
        async def serve(receive: Receive) -> bytes:
            # Nested, so that this frame does not hold the body while the method waits.
            return await rpc.serve(await read_request(receive, self._message_bytes_max))

        return serve
