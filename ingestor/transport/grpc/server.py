"""Serves rpcs over gRPC: bytes to upb to the typed method, every failure by the one table of statuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from grpclib.server import Stream
from loguru import logger

from ingestor.errors import AddressProblem, Refusal
from ingestor.transport.grpc.connections import DrainableServer
from ingestor.transport.grpc.framing import read_message
from ingestor.transport.rpc import Rpc
from ingestor.transport.status import InternalFault, answer_to, details_of

BytesStream = Stream[bytes, bytes]


class GrpcServer:
    """One listening address. `start`, then `drain` and `close`, once each."""

    def __init__(self, rpcs: Iterable[Rpc], *, message_bytes_max: int) -> None:
        self._rpcs = tuple(rpcs)
        self._message_bytes_max = message_bytes_max
        self._server: DrainableServer | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port. Raises AddressProblem."""
        mapping = {rpc.path: self._handler(rpc) for rpc in self._rpcs}
        server = DrainableServer(
            [_Servable(mapping)], codec=_BytesCodec(), status_details_codec=ProtoStatusDetailsCodec()
        )
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

    def _handler(self, rpc: Rpc) -> Handler:
        async def handle(stream: BytesStream) -> None:
            try:
                body = await read_message(stream._stream.recv_data, self._message_bytes_max)
                answer = await rpc.call(rpc.parse(body))
            except Refusal as refusal:
                raise _grpc_error(refusal) from None
            except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
                logger.bind(rpc=rpc.path).opt(exception=error).error("a call failed in a way not foreseen")
                raise _grpc_error(InternalFault()) from None
            await stream.send_message(answer)

        return Handler(handle, Cardinality.UNARY_UNARY, bytes, bytes)


class _Servable:
    """What grpclib asks a service for."""

    def __init__(self, mapping: dict[str, Handler]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping


class _BytesCodec(CodecBase):
    """Messages are encoded and decoded elsewhere; grpclib only carries their bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


def _grpc_error(refusal: Refusal) -> GRPCError:
    code = Status(answer_to(refusal).code)
    return GRPCError(code, refusal.message, details_of(refusal) or None)
