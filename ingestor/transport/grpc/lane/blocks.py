"""Header blocks that come in, each of them the beginning of a call or the trailers of one: says whose they are.

Frames of other streams may not come in between (RFC 9113, 4.3), so there is one block at a time; one that is cut
into frames is the lane's only as trailers of a call of its own. It keeps no more of a block than a bound.
"""

from __future__ import annotations

from collections.abc import Mapping

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from ingestor.transport.grpc import wire
from ingestor.transport.grpc.calls import Method
from ingestor.transport.grpc.farewell import Farewell
from ingestor.transport.grpc.floods import Budget
from ingestor.transport.grpc.lane.accounts import Accounts
from ingestor.transport.grpc.lane.call import Call
from ingestor.transport.grpc.lane.requests import Requests
from ingestor.transport.grpc.opening import BLOCK_BYTES_MAX, Request


class _Trailing:
    """A request's trailers, of which not all have come."""

    __slots__ = ("block", "call", "ends")

    def __init__(self, call: Call, block: bytearray, *, ends: bool) -> None:
        self.call = call
        self.block = block
        self.ends = ends


class Blocks:
    """Those of one connection. `partial` says that one has begun, and has yet to end."""

    __slots__ = (
        *("_accounts", "_budget", "_bytes", "_farewell"),
        *("_methods", "_requests", "_trailing", "partial"),
    )

    def __init__(
        self,
        methods: Mapping[str, Method],
        farewell: Farewell,
        budget: Budget,
        accounts: Accounts,
        requests: Requests,
    ) -> None:
        self._methods = methods
        self._farewell = farewell
        self._budget = budget
        self._accounts = accounts
        self._requests = requests
        self._bytes = 0
        self._trailing: _Trailing | None = None
        self.partial = False

    def took_headers(self, call: Call | None, start: wire.Start, payload: bytes) -> bool:
        """Whether this HEADERS is the lane's; then it is dealt with. `call` is the one that has its stream. Raises
        ProtocolError for what ends the connection."""
        flags, stream_id = start.flags, start.stream_id
        padding = 0
        if flags & wire.PADDED:
            padding, payload = payload[0] if payload else 0, payload[1:]
        before = wire.PRIORITY_BYTES if flags & wire.PRIORITY else 0
        whole, ends = bool(flags & wire.END_HEADERS), bool(flags & wire.END_STREAM)
        if not whole:
            self.partial, self._bytes = True, start.length
        if before + padding > len(payload) or not (whole or call):
            return False  # h2 says what is wrong, or has the block alone
        block = payload[before : len(payload) - padding]
        if call is None:
            return self._opened(stream_id, self._request(block), ends=ends)
        if whole:
            self._requests.trailers(call, self._request(block).headers, ends=ends)
        else:
            self._trailing = _Trailing(call, bytearray(block), ends=ends)
        return True

    def took_continuation(self, start: wire.Start, payload: bytes) -> bool:
        """The same of a frame that comes while a block is `partial`."""
        trailing = self._trailing
        if start.type != wire.CONTINUATION and trailing is None:
            self.partial = False
            return False  # h2 says what is wrong
        if start.type != wire.CONTINUATION or (trailing and start.stream_id != trailing.call.stream_id):
            raise self._accounts.broken(ErrorCodes.PROTOCOL_ERROR, "a header block is interrupted")
        self._budget.spend()
        self._bytes += start.length
        if self._bytes > BLOCK_BYTES_MAX:
            raise self._accounts.broken(ErrorCodes.ENHANCE_YOUR_CALM, "a header block is too long")
        whole = bool(start.flags & wire.END_HEADERS)
        self.partial = not whole
        if trailing is None:
            return False
        trailing.block += payload
        if whole:
            self._trailing = None
            request = self._request(bytes(trailing.block))
            self._requests.trailers(trailing.call, request.headers, ends=trailing.ends)
        return True

    def _opened(self, stream_id: int, request: Request, *, ends: bool) -> bool:
        """Whether a block of no call of the lane begins one."""
        new = self._accounts.is_new(stream_id)
        if request.opening is not None and new and not ends:
            if request.opening.from_grpclib:
                self._farewell.hangs_up = True
            if not self._farewell.refuses:
                self._requests.open(stream_id, request.opening)
                return True
        if not new:
            self._budget.spend()
        self._accounts.decoder.decoded = request.headers
        return False

    def _request(self, block: bytes) -> Request:
        try:
            return self._accounts.decoder.request(block, self._methods)
        except ProtocolError as error:
            raise self._accounts.broken(error.error_code, str(error)) from error
