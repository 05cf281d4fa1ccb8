"""Requests of ordinary unary calls, from their headers until they are whole.

It holds no more of them than the bounds of the connection and of the process allow, and runs nothing: what comes
whole is handed on, and what does not is refused.
"""

from __future__ import annotations

import time
from functools import partial

from grpclib.protocol import EventsProcessor
from h2.errors import ErrorCodes

from ingestor.errors import Refusal
from ingestor.transport.admission import Admission
from ingestor.transport.bounds import STREAMS_MAX
from ingestor.transport.grpc import wire
from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.calls import told
from ingestor.transport.grpc.framing import Framing
from ingestor.transport.grpc.lane.accounts import Accounts
from ingestor.transport.grpc.lane.call import Call
from ingestor.transport.grpc.lane.lanes import Lanes
from ingestor.transport.grpc.lane.outgoing import Outgoing
from ingestor.transport.grpc.lane.serving import Calls
from ingestor.transport.grpc.opening import Header, Opening, valid_trailers
from ingestor.transport.slowness import stood_still, too_slow
from ingestor.transport.tls import peer_names


class Requests:
    """Those of one connection. `processor` has grpclib's calls, which count against the same limit of streams."""

    __slots__ = (
        *("_accounts", "_allowance", "_calls", "_connection"),
        *("_lanes", "_names", "_outgoing", "_streams"),
    )

    def __init__(
        self,
        lanes: Lanes,
        processor: EventsProcessor,
        allowance: Allowance,
        *,
        accounts: Accounts,
        outgoing: Outgoing,
        calls: Calls,
    ) -> None:
        self._lanes = lanes
        self._connection = processor.connection
        self._streams = processor.streams
        self._allowance = allowance
        self._accounts = accounts
        self._outgoing = outgoing
        self._calls = calls
        self._names = peer_names(processor.connection._transport)

    def open(self, stream_id: int, opening: Opening) -> None:
        """A request begins."""
        self._accounts.opened(stream_id)
        if len(self._calls.by_stream) + len(self._streams) >= STREAMS_MAX:
            self._allowance.budget.spend()
            self._outgoing.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        now = self._connection.last_stream_created = time.monotonic()
        framing = Framing(self._lanes.message_bytes_max, gzip=opening.gzip)
        call = Call(stream_id, opening, framing, now, self._accounts.stream_window)
        self._calls.begin(call)
        try:
            call.caller = self._admission(opening).enter()
            self._allowance.acquaintance.note(call.caller)
        except Refusal as refusal:
            call.framing = None
            self._calls.refuse(call, told(refusal, opening.path), resets=True)

    def data(self, call: Call, start: wire.Start, payload: memoryview) -> None:
        """More of a request. Raises ProtocolError for what ends the connection."""
        self.received(start.length)
        call.window -= start.length
        ends = bool(start.flags & wire.END_STREAM)
        if start.flags & wire.PADDED:
            padding = payload[0] if payload else 0
            if padding >= start.length:
                raise self._accounts.broken(ErrorCodes.PROTOCOL_ERROR, "padding as long as its frame")
            payload = payload[1 : start.length - padding]
        if call.framing is not None:
            self._more(call, call.framing, payload, ends=ends)
        elif call.task is not None:
            self._calls.break_off(call, ErrorCodes.STREAM_CLOSED)  # data behind the request's end

    def received(self, size: int) -> None:
        """So many bytes of DATA came, whatever they are for. Raises ProtocolError likewise."""
        if increment := self._accounts.received(size):
            self._outgoing.send(wire.number_frame(wire.WINDOW_UPDATE, 0, increment))

    def trailers(self, call: Call, headers: list[Header], *, ends: bool) -> None:
        """gRPC's requests have none; those of HTTP/2 end the request."""
        if self._calls.by_stream.get(call.stream_id) is not call:
            return  # it was given up while they came
        if ends and call.framing is not None and valid_trailers(headers):
            self._more(call, call.framing, memoryview(b""), ends=True)
        else:
            self._calls.break_off(call, ErrorCodes.PROTOCOL_ERROR)

    def check(self, now: float) -> None:
        """Lets go of requests that don't come to their end."""
        timeout_s = self._allowance.bounds.request_timeout_s
        for call in tuple(self._calls.by_stream.values()):
            if now - call.began_at <= timeout_s:
                break
            if call.framing is not None:
                self._give_up(call, too_slow(timeout_s))

    def _admission(self, opening: Opening) -> Admission:
        """Decided once for an opening, which lives as long as its connection."""
        if (admission := opening.admission) is None:
            admission = opening.admission = self._lanes.gate.recognise(
                opening.path, opening.metadata, self._names
            )
        return admission

    def _more(self, call: Call, framing: Framing, payload: memoryview, *, ends: bool) -> None:
        """More of the request, or all of it."""
        try:
            framing.add(payload)
            message = framing.complete() if ends else None
        except Refusal as refusal:
            call.heard_out()
            self._calls.refuse(call, told(refusal, call.opening.path), resets=not ends)
            return
        if message is None:
            self._wait_for_more(call, len(payload))
            return
        call.heard_out()
        self._calls.run(call, message, deflated=framing.deflated)

    def _wait_for_more(self, call: Call, size: int) -> None:
        """So many bytes came that are no whole request. Once its size is known, the client may send all of it."""
        if call.held is None:
            call.held = self._allowance.bodies.begin(partial(self._make_room, call))
        call.held.grow(size)
        if call.framing is None:
            return  # there was no room for it
        if increment := self._accounts.widened(call, call.framing.missing):
            self._outgoing.send(wire.number_frame(wire.WINDOW_UPDATE, call.stream_id, increment))

    def _make_room(self, call: Call) -> None:
        self._give_up(call, stood_still())

    def _give_up(self, call: Call, refusal: Refusal) -> None:
        """The request does not come to its end."""
        call.heard_out()
        self._calls.refuse(call, told(refusal, call.opening.path), resets=True)
