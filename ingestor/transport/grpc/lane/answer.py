"""An answer as it goes over the wire: headers, a message and trailers, in blocks that leave the compression state
alone. Pure: it is made here and sent elsewhere, and its message is never copied to be sent in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_bin_value, encode_grpc_message

from ingestor.metadata import CallMetadata, Value
from ingestor.transport.grpc import wire
from ingestor.transport.grpc.headers import encoded, sendable

_RESPONSE = ((":status", "200"), ("content-type", "application/grpc+proto"))
_HEADERS_BLOCK = wire.literals(_RESPONSE)
_DETAILS = ProtoStatusDetailsCodec()
OK_BLOCK = wire.literals([("grpc-status", "0")])


class Answer:
    """What is left to be sent of an answer: headers, a message with the trailers behind it (or neither, then the
    headers are all), and whether a reset ends it. `code` is the status that it tells."""

    __slots__ = ("block", "code", "message", "resets")

    def __init__(self, code: int, block: bytes, message: memoryview | None, *, resets: bool) -> None:
        self.code = code
        self.block: bytes | None = block
        self.message = message
        self.resets = resets

    @property
    def bytes_left(self) -> int:
        """What has yet to be sent of it, as it lies here."""
        return len(self.block or b"") + len(self.message or b"")


def answered(response: bytes, metadata: CallMetadata) -> Answer:
    """What a method has answered."""
    message = b"\0" + len(response).to_bytes(4) + response
    block = _HEADERS_BLOCK
    if metadata.sent:
        block += wire.literals(encoded(sendable(metadata.sent)))
    return Answer(0, block, memoryview(message), resets=False)


def refused(error: GRPCError, metadata: CallMetadata | None, *, resets: bool) -> Answer:
    """Nothing but this status. A request that has not ended is then reset, as by gRPC's own servers."""
    sent = () if metadata is None else sendable(metadata.sent)
    return Answer(error.status.value, _trailers(error, sent), None, resets=resets)


def _trailers(error: GRPCError, metadata: Sequence[tuple[str, Value]]) -> bytes:
    headers = [*_RESPONSE, ("grpc-status", str(error.status.value))]
    if error.message is not None:
        headers.append(("grpc-message", encode_grpc_message(error.message)))
    if error.details is not None:
        details = _DETAILS.encode(error.status, error.message, error.details)
        headers.append(("grpc-status-details-bin", encode_bin_value(details).decode()))
    headers.extend(encoded(metadata))
    return wire.literals(headers)
