"""Takes what a client sends apart into frames, and gives each to the lane or to h2, in their order.

It looks into no frame but those that stand for themselves, and has each one that asks for nothing paid for.
"""

from __future__ import annotations

import time

from grpclib.protocol import EventsProcessor
from h2.errors import ErrorCodes

from ingestor.transport.grpc import wire
from ingestor.transport.grpc.floods import LOST_TASK, Budget
from ingestor.transport.grpc.lane.accounts import Accounts
from ingestor.transport.grpc.lane.blocks import Blocks
from ingestor.transport.grpc.lane.call import Call
from ingestor.transport.grpc.lane.outgoing import Outgoing
from ingestor.transport.grpc.lane.requests import Requests
from ingestor.transport.grpc.lane.serving import Calls

# A piece of a request costs the client more than us, unless it is as small as that.
_TINY_BYTES = 16
# Of other frames, as many as a PING has and some more.
_COST_BYTES = 64
# Who gives up a call sooner has hardly wanted its answer.
_WANTED_S = 1.0


class Frames:
    """Those of one connection. `heard` are the packets that ended a frame."""

    __slots__ = (
        *("_accounts", "_blocks", "_budget", "_calls", "_connection", "_outgoing", "_preface_left"),
        *("_processor", "_requests", "_unread", "heard"),
    )

    def __init__(
        self,
        processor: EventsProcessor,
        budget: Budget,
        accounts: Accounts,
        outgoing: Outgoing,
        *,
        calls: Calls,
        requests: Requests,
        blocks: Blocks,
    ) -> None:
        self._connection = processor.connection
        self._processor = processor
        self._budget = budget
        self._accounts = accounts
        self._outgoing = outgoing
        self._calls = calls
        self._requests = requests
        self._blocks = blocks
        self._unread = b""
        self._preface_left = wire.PREFACE_BYTES
        self.heard = 0

    @property
    def partial(self) -> bool:
        """Whether a frame or a header block has begun, and has yet to end."""
        return bool(self._unread) or self._blocks.partial

    def feed(self, data: bytes) -> None:
        """Deals with these bytes. Raises ProtocolError for what ends the connection."""
        if self._preface_left:
            preface, data = data[: self._preface_left], data[self._preface_left :]
            self._preface_left -= len(preface)
            self._usual(preface)
        if self._unread:
            data = self._unread + data
        at, end = 0, len(data)
        budget, bytes_max = self._budget, self._accounts.frame_bytes_max
        while end - at >= wire.FRAME_HEADER_BYTES:
            start = wire.read_start(data, at)
            if start.length > bytes_max:
                raise self._accounts.broken(ErrorCodes.FRAME_SIZE_ERROR, "a frame is too large")
            body = at + wire.FRAME_HEADER_BYTES
            after = body + start.length
            if after > end:
                break
            if not self._took(start, data, body, after):
                self._usual(data[at:after])
                if not self._outgoing.writable:
                    return
            at = after
            if budget.left < 0:
                msg = "too many frames that ask for nothing"
                raise self._accounts.broken(ErrorCodes.ENHANCE_YOUR_CALM, msg)
        self.heard += at > 0
        self._unread = data[at:]
        self._calls.push()  # the client's windows may have grown

    def _usual(self, data: bytes) -> None:
        """h2's and grpclib's way, as in `H2Protocol.data_received`."""
        events = self._connection.feed(data)
        self._connection.flush()
        for event in events:
            self._processor.process(event)
        self._connection.flush()

    def _took(self, start: wire.Start, data: bytes, body: int, after: int) -> bool:
        """Whether the frame is the lane's; then it is dealt with."""
        length, type_, flags, stream_id = start
        if self._blocks.partial:
            return self._blocks.took_continuation(start, data[body:after])
        if not stream_id:
            return self._took_common(start, data[body:after])
        call = self._calls.by_stream.get(stream_id)
        if type_ == wire.HEADERS:
            return self._blocks.took_headers(call, start, data[body:after])
        if type_ != wire.DATA:
            self._budget.spend(self._cost(call, start))
        elif length < _TINY_BYTES and not flags & wire.END_STREAM:
            self._budget.spend()
        if call is None:
            return self._took_late(start)
        return self._took_of(call, start, memoryview(data)[body:after])

    def _took_common(self, start: wire.Start, payload: bytes) -> bool:
        """What clients send all the time beside calls: they measure the round trip, and credit what they read."""
        self._budget.spend(1 + start.length // _COST_BYTES)
        if start.type == wire.PING and start.length == wire.PING_BYTES and not start.flags:
            self._outgoing.send(wire.frame(wire.PING, wire.ACK, 0, payload))
            return True
        if start.type != wire.WINDOW_UPDATE or start.length != wire.NUMBER_BYTES or self._processor.streams:
            return False
        return self._accounts.credited(
            int.from_bytes(payload) & wire.WINDOW_MAX
        )  # else h2 says what is wrong

    def _took_late(self, start: wire.Start) -> bool:
        # What was under way when the lane reset the stream, which grpc's clients know about already.
        ignored = start.type == wire.DATA and self._accounts.was_reset(start.stream_id)
        if ignored:
            self._requests.received(start.length)
        elif start.stream_id not in self._processor.streams:
            self._budget.spend()  # h2 may have to answer it
        return ignored

    def _took_of(self, call: Call, start: wire.Start, payload: memoryview) -> bool:
        if start.type == wire.DATA:
            self._requests.data(call, start, payload)
        elif start.type == wire.RST_STREAM and start.length == wire.NUMBER_BYTES:
            self._calls.drop(call)
        elif start.type == wire.WINDOW_UPDATE and start.length == wire.NUMBER_BYTES:
            wrong = self._accounts.credited_for(call, int.from_bytes(payload) & wire.WINDOW_MAX)
            if wrong is not None:
                self._calls.break_off(call, wrong)
        else:
            return False
        return True

    def _cost(self, call: Call | None, start: wire.Start) -> int:
        """What a frame costs that is neither headers nor data."""
        if start.type != wire.RST_STREAM:
            return 1 + start.length // _COST_BYTES
        began_at: float | None
        if call is not None:
            began_at, has_task = call.began_at, call.task is not None
        else:
            stream = self._processor.streams.get(start.stream_id)
            began_at, has_task = (None if stream is None else stream.created), stream is not None
        # A caller whose time is over gives its calls up, and pays nothing for that.
        if began_at is not None and time.monotonic() - began_at >= _WANTED_S:
            return 0
        return LOST_TASK if has_task else 1
