"""The lane: unary calls on grpclib's own connection, without a Stream, a dozen events and three writes for each.

grpclib 0.4.9 over h2 spends some 200 us on a unary call, nearly all of it on objects that an ordinary call does
not need. The lane stands before h2 and takes the frames of ordinary unary calls out of what comes in; everything
else goes to h2 and grpclib as it would without it: other methods, odd headers, settings, errors. When a
request has ended its method runs as a task, and the answers of one turn of the event loop leave in one write.

Invariants:
- Each byte goes either to the lane or to h2, in whole frames, in their order. A stream belongs to one of them for
  all of its life; which, is decided by its HEADERS.
- There is one HPACK state for each direction, h2's. What the lane has decoded and does not take, h2 gets decoded.
  What the lane sends leaves the compression state as it is, so its place among h2's own frames is free.
- There is one account of flow control for the connection, h2's, and the lane keeps it for what it takes and sends.
- h2 knows the highest stream that was opened, and which streams the lane has reset.
- A call is in `_calls` from its HEADERS until its answer is handed to the transport, the client resets it, or the
  connection is gone; never longer. They count against the limit of concurrent streams, also while the client does
  not read. Answers that wait to be sent are counted by their bytes; where there are too many, those that have not
  moved for longest are given up.
- What a client sends beside calls is paid for from the connection's budget (`floods`); with nothing left in it, the
  connection ends before the next frame is looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from grpclib.metadata import encode_bin_value, encode_grpc_message
from grpclib.protocol import Connection, EventsProcessor
from h2.connection import ConnectionInputs, ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.stream import StreamClosedBy
from loguru import logger

from ingestor.caller import ANYBODY, CALLER
from ingestor.deadline import CALLER_SAYS
from ingestor.errors import Refusal
from ingestor.metadata import METADATA, CallMetadata, Value
from ingestor.transport.admission import OPEN, Admission, Gate
from ingestor.transport.bounds import STREAMS_MAX
from ingestor.transport.compression import inflated_aside
from ingestor.transport.grpc import wire
from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.calls import Method, told, too_late
from ingestor.transport.grpc.farewell import Farewell, Stage
from ingestor.transport.grpc.floods import ANSWER, LOST_TASK
from ingestor.transport.grpc.framing import Framing
from ingestor.transport.grpc.headers import encoded, sendable
from ingestor.transport.grpc.opening import (
    BLOCK_BYTES_MAX,
    Header,
    Opening,
    Request,
    SharedDecoder,
    valid_trailers,
)
from ingestor.transport.holding import Held
from ingestor.transport.observing import CANCELLED, Observers
from ingestor.transport.slowness import stood_still, too_slow
from ingestor.transport.stalls import Stall
from ingestor.transport.status import InternalFault
from ingestor.transport.tls import peer_names

_RESPONSE = ((":status", "200"), ("content-type", "application/grpc+proto"))
_HEADERS_BLOCK = wire.literals(_RESPONSE)
_OK_BLOCK = wire.literals([("grpc-status", "0")])
# A piece of a request costs the client more than us, unless it is as small as that.
_TINY_BYTES = 16
# Of other frames, as many as a PING has and some more.
_COST_BYTES = 64
# Who gives up a call sooner has hardly wanted its answer.
_WANTED_S = 1.0


class _Call:
    """One call, which began when its headers came. `sent` are the answer's bytes, and `credit` how many of them we
    were told we may beyond a stream's first window. `window` is what the client may send of the request; `held` are
    its bytes as long as it has not come whole, `unread` those of the answer that can't be sent yet."""

    __slots__ = (
        *("began_at", "caller", "credit", "expired", "framing", "held", "opening", "sent"),
        *("stall", "stream_id", "task", "timer", "unread", "unsent", "window"),
    )

    def __init__(
        self, stream_id: int, opening: Opening, framing: Framing, began_at: float, window: int
    ) -> None:
        self.began_at = began_at
        self.caller = ANYBODY
        self.stream_id = stream_id
        self.opening = opening
        self.framing: Framing | None = framing  # until the request has ended, or is not listened to any more
        self.window = window
        self.sent = self.credit = 0
        self.held: Held | None = None
        self.stall: Stall | None = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.expired = False
        self.unread: Held | None = None
        self.unsent: _Answer | None = None


class _Answer:
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


class _Trailing:
    """A request's trailers, of which not all have come."""

    __slots__ = ("block", "call", "ends")

    def __init__(self, call: _Call, block: bytearray, *, ends: bool) -> None:
        self.call = call
        self.block = block
        self.ends = ends


class Lanes:
    """What all connections' lanes share: the unary methods, who is told what became of calls, the bound of a
    message in bytes, who is let in, and the `tasks` that run methods."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        message_bytes_max: int,
        observers: Observers,
        gate: Gate = OPEN,
    ) -> None:
        self.gate = gate
        self.observers = observers
        self.message_bytes_max = message_bytes_max
        self.tasks: set[asyncio.Task[None]] = set()
        self.methods = methods
        self._details = ProtoStatusDetailsCodec()

    def trailers(self, error: GRPCError, metadata: Sequence[tuple[str, Value]] = ()) -> bytes:
        """The header block of an answer that is nothing but this status, and metadata."""
        headers = [*_RESPONSE, ("grpc-status", str(error.status.value))]
        if error.message is not None:
            headers.append(("grpc-message", encode_grpc_message(error.message)))
        if error.details is not None:
            details = self._details.encode(error.status, error.message, error.details)
            headers.append(("grpc-status-details-bin", encode_bin_value(details).decode()))
        headers.extend(encoded(metadata))
        return wire.literals(headers)


class Lane:
    """The lane of one connection. `feed` gets all that the client sends."""

    def __init__(
        self,
        lanes: Lanes,
        connection: Connection,
        processor: EventsProcessor,
        farewell: Farewell,
        allowance: Allowance,
    ) -> None:
        self._lanes = lanes
        self._bounds = allowance.bounds
        self._bodies = allowance.bodies
        self._acquaintance = allowance.acquaintance
        self._answers = allowance.answers
        self._budget = allowance.budget
        self._connection = connection
        self._processor = processor
        self._farewell = farewell
        self._loop = asyncio.get_running_loop()
        h2: H2Connection = connection._connection
        self._h2 = h2
        self._decoder = h2.decoder = SharedDecoder(h2.decoder)
        self._calls: dict[int, _Call] = {}
        self._blocked: dict[int, _Call] = {}  # those with an answer that could not be sent at once
        self._unread = b""
        self._preface_left = wire.PREFACE_BYTES
        self._in_header_block = False
        self._block_bytes = 0
        self._trailing: _Trailing | None = None
        self.heard = 0  # packets that ended a frame
        self._out: list[bytes] = []
        self._names = peer_names(connection._transport)
        self._some_ended = False  # calls, of which the farewell does not know yet

    @property
    def open(self) -> int:
        """How many calls are under way, among them those whose answers are not handed to the transport yet."""
        return len(self._calls) + bool(self._out)

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    @property
    def partial(self) -> bool:
        """Whether a frame or a header block has begun, and has yet to end."""
        return bool(self._unread) or self._in_header_block

    def feed(self, data: bytes) -> None:
        """Takes what is the lane's out of these bytes and gives the rest to h2. Raises ProtocolError for what ends
        the connection."""
        if self._preface_left:
            preface, data = data[: self._preface_left], data[self._preface_left :]
            self._preface_left -= len(preface)
            self._usual(preface)
        if self._unread:
            data = self._unread + data
        at, end = 0, len(data)
        budget = self._budget
        while end - at >= wire.FRAME_HEADER_BYTES:
            start = wire.read_start(data, at)
            if start.length > self._h2.max_inbound_frame_size:
                raise self._connection_error(ErrorCodes.FRAME_SIZE_ERROR, "a frame is too large")
            body = at + wire.FRAME_HEADER_BYTES
            after = body + start.length
            if after > end:
                break
            if not self._took(start, data, body, after):
                self._usual(data[at:after])
                if not self._writable:
                    return
            at = after
            if budget.left < 0:
                msg = "too many frames that ask for nothing"
                raise self._connection_error(ErrorCodes.ENHANCE_YOUR_CALM, msg)
        self.heard += at > 0
        self._unread = data[at:]
        if self._blocked:
            self._push()  # the client's windows may have grown

    def resume_writing(self) -> None:
        """The client reads again."""
        self._push()

    def connection_lost(self) -> None:
        """Nobody waits for answers any more."""
        for call in tuple(self._calls.values()):
            self._let_go(call)
            self._over(call, CANCELLED)
        self._blocked.clear()
        self._out.clear()

    def _usual(self, data: bytes) -> None:
        """h2's and grpclib's way, as in `H2Protocol.data_received`."""
        events = self._connection.feed(data)
        self._connection.flush()
        for event in events:
            self._processor.process(event)
        self._connection.flush()

    def check(self, now: float) -> None:
        """Lets go of requests that don't come to their end, and of answers that are not read."""
        for call in tuple(self._calls.values()):
            if now - call.began_at <= self._bounds.request_timeout_s:
                break
            if call.framing is not None:
                self._give_up(call, too_slow(self._bounds.request_timeout_s))
        if not self._connection.write_ready.is_set():
            return  # the connection as a whole is waited for
        for call in tuple(self._blocked.values()):
            if call.stall is None:
                call.stall = Stall(self._bounds.send_timeout_s)
            if call.stall.is_over(now, -call.sent):
                self._leave(call)

    def _took(self, start: wire.Start, data: bytes, body: int, after: int) -> bool:
        """Whether the frame is the lane's; then it is dealt with."""
        length, type_, flags, stream_id = start
        if self._in_header_block:
            return self._took_continuation(start, data[body:after])
        if not stream_id:
            return self._took_common(start, data[body:after])
        call = self._calls.get(stream_id)
        if type_ == wire.HEADERS:
            return self._took_headers(call, start, data[body:after])
        if type_ != wire.DATA:
            self._budget.spend(self._cost(call, start))
        elif length < _TINY_BYTES and not flags & wire.END_STREAM:
            self._budget.spend()
        if call is None:
            return self._took_late(start)
        return self._took_of(call, start, memoryview(data)[body:after])

    def _took_late(self, start: wire.Start) -> bool:
        # What was under way when the lane reset the stream, which grpc's clients know about already.
        ignored = (
            start.type == wire.DATA
            and self._h2._closed_streams.get(start.stream_id) is StreamClosedBy.SEND_RST_STREAM
        )
        if ignored:
            self._credit(start.length)
        elif start.stream_id not in self._processor.streams:
            self._budget.spend()  # h2 may have to answer it
        return ignored

    def _took_of(self, call: _Call, start: wire.Start, payload: memoryview) -> bool:
        if start.type == wire.DATA:
            self._data(call, start, payload)
        elif start.type == wire.RST_STREAM and start.length == wire.NUMBER_BYTES:
            self._drop(call)
        elif start.type == wire.WINDOW_UPDATE and start.length == wire.NUMBER_BYTES:
            self._credited(call, int.from_bytes(payload) & wire.WINDOW_MAX)
        else:
            return False
        return True

    def _cost(self, call: _Call | None, start: wire.Start) -> int:
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

    def _took_continuation(self, start: wire.Start, payload: bytes) -> bool:
        trailing = self._trailing
        if start.type != wire.CONTINUATION and trailing is None:
            self._in_header_block = False
            return False  # h2 says what is wrong
        if start.type != wire.CONTINUATION or (trailing and start.stream_id != trailing.call.stream_id):
            raise self._connection_error(ErrorCodes.PROTOCOL_ERROR, "a header block is interrupted")
        self._budget.spend()
        self._block_bytes += start.length
        if self._block_bytes > BLOCK_BYTES_MAX:
            raise self._connection_error(ErrorCodes.ENHANCE_YOUR_CALM, "a header block is too long")
        ends = bool(start.flags & wire.END_HEADERS)
        self._in_header_block = not ends
        if trailing is None:
            return False
        trailing.block += payload
        if ends:
            self._trailing = None
            request = self._request(bytes(trailing.block))
            self._trailers(trailing.call, request.headers, ends=trailing.ends)
        return True

    def _took_common(self, start: wire.Start, payload: bytes) -> bool:
        """What clients send all the time beside calls: they measure the round trip, and credit what they read."""
        self._budget.spend(1 + start.length // _COST_BYTES)
        if start.type == wire.PING and start.length == wire.PING_BYTES and not start.flags:
            self._send(wire.frame(wire.PING, wire.ACK, 0, payload))
            return True
        if start.type != wire.WINDOW_UPDATE or start.length != wire.NUMBER_BYTES or self._processor.streams:
            return False
        increment = int.from_bytes(payload) & wire.WINDOW_MAX
        window = self._h2.outbound_flow_control_window + increment
        if not increment or window > wire.WINDOW_MAX:
            return False  # h2 says what is wrong
        self._h2.outbound_flow_control_window = window
        return True

    def _took_headers(self, call: _Call | None, start: wire.Start, payload: bytes) -> bool:
        flags, stream_id = start.flags, start.stream_id
        padding = 0
        if flags & wire.PADDED:
            padding, payload = payload[0] if payload else 0, payload[1:]
        before = wire.PRIORITY_BYTES if flags & wire.PRIORITY else 0
        whole = bool(flags & wire.END_HEADERS)
        if not whole:
            self._in_header_block, self._block_bytes = True, start.length
        if before + padding > len(payload) or not (whole or call):
            return False  # h2 says what is wrong, or has the block alone
        block = payload[before : len(payload) - padding]
        if not whole and call is not None:
            self._trailing = _Trailing(call, bytearray(block), ends=bool(flags & wire.END_STREAM))
            return True
        request = self._request(block)
        if call is not None:
            self._trailers(call, request.headers, ends=bool(flags & wire.END_STREAM))
            return True
        new = stream_id % 2 == 1 and stream_id > self._h2.highest_inbound_stream_id
        if request.opening is not None and new and not flags & wire.END_STREAM:
            if request.opening.from_grpclib:
                self._farewell.hangs_up = True
            if not self._farewell.refuses:
                self._open(stream_id, request.opening)
                return True
        if not new:
            self._budget.spend()
        self._decoder.decoded = request.headers
        return False

    def _request(self, block: bytes) -> Request:
        try:
            return self._decoder.request(block, self._lanes.methods)
        except ProtocolError as error:
            raise self._connection_error(error.error_code, str(error)) from error

    def _open(self, stream_id: int, opening: Opening) -> None:
        h2 = self._h2
        if h2.state_machine.state is ConnectionState.IDLE:
            h2.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        h2.highest_inbound_stream_id = stream_id
        if len(self._calls) + len(self._processor.streams) >= STREAMS_MAX:
            self._budget.spend()
            self._reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        now = self._connection.last_stream_created = time.monotonic()
        framing = Framing(self._lanes.message_bytes_max, gzip=opening.gzip)
        call = _Call(stream_id, opening, framing, now, h2.local_settings.initial_window_size)
        self._calls[stream_id] = call
        if opening.timeout_s is not None:
            call.timer = self._loop.call_later(opening.timeout_s, self._expire, call)
        try:
            call.caller = self._admission(opening).enter()
            self._acquaintance.note(call.caller)
        except Refusal as refusal:
            call.framing = None
            self._refuse(call, told(refusal, opening.path), resets=True)

    def _admission(self, opening: Opening) -> Admission:
        """Decided once for an opening, which lives as long as its connection."""
        if (admission := opening.admission) is None:
            admission = opening.admission = self._lanes.gate.recognise(
                opening.path, opening.metadata, self._names
            )
        return admission

    def _trailers(self, call: _Call, headers: list[Header], *, ends: bool) -> None:
        """gRPC's requests have none; those of HTTP/2 end the request."""
        if self._calls.get(call.stream_id) is not call:
            return  # it was given up while they came
        if ends and call.framing is not None and valid_trailers(headers):
            self._more(call, memoryview(b""), ends=True)
        else:
            self._end_wrong(call, ErrorCodes.PROTOCOL_ERROR)

    def _data(self, call: _Call, start: wire.Start, payload: memoryview) -> None:
        ends = bool(start.flags & wire.END_STREAM)
        self._credit(start.length)
        call.window -= start.length
        if start.flags & wire.PADDED:
            padding = payload[0] if payload else 0
            if padding >= start.length:
                raise self._connection_error(ErrorCodes.PROTOCOL_ERROR, "padding as long as its frame")
            payload = payload[1 : start.length - padding]
        if call.framing is not None:
            self._more(call, payload, ends=ends)
        elif call.task is not None:
            self._end_wrong(call, ErrorCodes.STREAM_CLOSED)  # data behind the request's end

    def _more(self, call: _Call, payload: memoryview, *, ends: bool) -> None:
        """More of the request, or all of it: then its method runs."""
        assert call.framing is not None
        try:
            call.framing.add(payload)
            message = call.framing.complete() if ends else None
        except Refusal as refusal:
            self._heard_out(call)
            self._refuse(call, told(refusal, call.opening.path), resets=not ends)
            return
        if message is None:
            self._wait_for_more(call, len(payload))
            return
        deflated = call.framing.deflated
        self._heard_out(call)
        call.task = self._loop.create_task(self._serve(call, message, deflated=deflated))
        self._lanes.tasks.add(call.task)
        call.task.add_done_callback(partial(self._ended, call))

    def _wait_for_more(self, call: _Call, size: int) -> None:
        """So many bytes came that are no whole request. Once its size is known, the client may send all of it."""
        if call.held is None:
            call.held = self._bodies.begin(partial(self._make_room, call))
        call.held.grow(size)
        if call.framing is None:
            return  # there was no room for it
        usual, missing = self._h2.local_settings.initial_window_size, call.framing.missing
        if call.window < max(usual // 2, missing):
            increment = max(usual, missing) - call.window
            call.window += increment
            self._send(wire.number_frame(wire.WINDOW_UPDATE, call.stream_id, increment))

    def _heard_out(self, call: _Call) -> None:
        """The request is whole, or not listened to any more."""
        call.framing = None
        if call.held is not None:
            call.held.end()

    def _make_room(self, call: _Call) -> None:
        self._give_up(call, stood_still())

    def _give_up(self, call: _Call, refusal: Refusal) -> None:
        """The request does not come to its end."""
        self._heard_out(call)
        self._refuse(call, told(refusal, call.opening.path), resets=True)

    def _end_wrong(self, call: _Call, code: ErrorCodes) -> None:
        """The client breaks HTTP/2 on this stream. To make us reset calls is as cheap as to reset them
        (CVE-2025-8671)."""
        self._budget.spend(LOST_TASK)
        self._reset(call.stream_id, code)
        self._drop(call)

    def _credit(self, size: int) -> None:
        manager = self._h2._inbound_flow_control_window_manager
        if size > manager.current_window_size:
            raise self._connection_error(ErrorCodes.FLOW_CONTROL_ERROR, "more data than the window allows")
        manager.window_consumed(size)
        if increment := manager.process_bytes(size):
            self._send(wire.number_frame(wire.WINDOW_UPDATE, 0, increment))

    def _credited(self, call: _Call, increment: int) -> None:
        call.credit += increment
        window = self._h2.remote_settings.initial_window_size + call.credit - call.sent
        if not increment or window > wire.WINDOW_MAX:
            code = ErrorCodes.FLOW_CONTROL_ERROR if increment else ErrorCodes.PROTOCOL_ERROR
            self._end_wrong(call, code)

    async def _serve(self, call: _Call, message: bytes, *, deflated: bool) -> None:
        if call.timer is not None:
            CALLER_SAYS.set(True)  # this task serves this call alone
        metadata = CallMetadata(call.opening.metadata)
        METADATA.set(metadata)
        CALLER.set(call.caller)
        try:
            if deflated:
                message = await inflated_aside(message, self._lanes.message_bytes_max)
            serving = call.opening.method(message)
            del message  # the method may wait for long
            response = await serving
        except BaseException as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets an answer
            late = call.expired and isinstance(error, asyncio.CancelledError)
            self._refuse(call, too_late() if late else told(error, call.opening.path), metadata)
        else:
            message = b"\0" + len(response).to_bytes(4) + response
            block = _HEADERS_BLOCK
            if metadata.sent:
                block += wire.literals(encoded(sendable(metadata.sent)))
            self._answer(call, _Answer(0, block, memoryview(message), resets=False))

    def _ended(self, call: _Call, task: asyncio.Task[None]) -> None:
        """Sees to it that no task ends without an answer: cancelled before it began, it never came to answer."""
        self._lanes.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.opt(exception=error).error("a call ended without an answer")
        if self._calls.get(call.stream_id) is call and call.stream_id not in self._blocked:
            self._refuse(call, too_late() if call.expired else told(InternalFault(), call.opening.path))

    def _expire(self, call: _Call) -> None:
        """Its time is over."""
        call.expired = True
        if call.task is None:
            self._heard_out(call)
            self._refuse(call, too_late(), resets=True)
        else:
            call.task.cancel()

    def _refuse(
        self, call: _Call, error: GRPCError, metadata: CallMetadata | None = None, *, resets: bool = False
    ) -> None:
        """Answers with this status. A request that has not ended is then reset, as by gRPC's own servers."""
        sent = () if metadata is None else sendable(metadata.sent)
        self._answer(
            call, _Answer(error.status.value, self._lanes.trailers(error, sent), None, resets=resets)
        )

    def _answer(self, call: _Call, answer: _Answer) -> None:
        if call.stream_id in self._calls and not self._sent(call, answer):
            call.unsent = answer
            self._blocked[call.stream_id] = call
            call.unread = self._answers.begin(partial(self._leave, call))
            call.unread.grow(answer.bytes_left)

    def _leave(self, call: _Call) -> None:
        """Its answer is not read, and not kept."""
        self._reset(call.stream_id, ErrorCodes.CANCEL)
        self._drop(call)

    def _push(self) -> None:
        """Sends what may be sent by now."""
        for call in tuple(self._blocked.values()):
            assert call.unsent is not None
            assert call.unread is not None
            before = call.unsent.bytes_left
            if self._sent(call, call.unsent):
                del self._blocked[call.stream_id]
            elif (moved := before - call.unsent.bytes_left) > 0:
                call.unread.grow(-moved)

    def _sent(self, call: _Call, answer: _Answer) -> bool:
        """Sends what the client's windows and the transport allow. Says whether that was all; then the call is
        over."""
        if not self._connection.write_ready.is_set():
            return False
        if answer.block is not None:
            self._send_headers(call.stream_id, answer.block, ends=answer.message is None)
            answer.block = None
        if answer.message is not None:
            if not self._sent_message(call, answer):
                return False
            self._send(
                wire.frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, call.stream_id, _OK_BLOCK)
            )
        if answer.resets:
            self._budget.spend()
            self._reset(call.stream_id, ErrorCodes.NO_ERROR)
        else:
            self._budget.left += ANSWER
        self._over(call, answer.code)
        return True

    def _send_headers(self, stream_id: int, block: bytes, *, ends: bool) -> None:
        # A change of the client's table size is to be told in the next block, whoever sends it; and then that has
        # to leave before h2 encodes another.
        resized = self._h2.encoder.header_table.resized
        if resized:
            block = self._h2.encoder.encode([]) + block
        for frame in wire.header_frames(stream_id, block, self._h2.max_outbound_frame_size, end_stream=ends):
            self._send(frame)
        if resized:
            self._flush()

    def _sent_message(self, call: _Call, answer: _Answer) -> bool:
        h2 = self._h2
        while answer.message:
            stream_window = h2.remote_settings.initial_window_size + call.credit - call.sent
            size = min(h2.outbound_flow_control_window, stream_window, h2.max_outbound_frame_size)
            if size <= 0:
                return False
            piece, answer.message = answer.message[:size], answer.message[size:]
            h2.outbound_flow_control_window -= len(piece)
            call.sent += len(piece)
            self._send(wire.frame(wire.DATA, 0, call.stream_id, piece))
        return True

    def _over(self, call: _Call, code: int) -> None:
        self._lanes.observers[call.opening.path](code, time.monotonic() - call.began_at)
        if call.unread is not None:
            call.unread.end()
        if call.timer is not None:
            call.timer.cancel()
        del self._calls[call.stream_id]
        self._some_ended = True

    def _drop(self, call: _Call) -> None:
        """Nobody waits for the answer any more."""
        self._let_go(call)
        self._blocked.pop(call.stream_id, None)
        self._over(call, CANCELLED)
        # Not at once: it may end our side of the connection, and what came in the same packet may want an answer.
        self._loop.call_soon(self._tell_farewell)

    def _let_go(self, call: _Call) -> None:
        self._heard_out(call)
        if call.timer is not None:
            call.timer.cancel()
        if call.task is not None:
            call.task.cancel()

    def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        self._h2._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM
        self._send(wire.number_frame(wire.RST_STREAM, stream_id, code))

    def _send(self, frame: bytes) -> None:
        """Sends it with what else this turn of the event loop has to send."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        if not self._out or not self._writable:
            return
        frames, self._out = self._out, []
        self._connection._transport.write(b"".join(frames))
        self._tell_farewell()

    @property
    def _writable(self) -> bool:
        return self._farewell.stage is not Stage.ENDED and not self._connection.is_closing()

    def _tell_farewell(self) -> None:
        if self._some_ended and not self._out:
            self._some_ended = False
            self._farewell.call_ended()

    def _connection_error(self, code: ErrorCodes, message: str) -> ProtocolError:
        self._h2._terminate_connection(code)
        return (DenialOfServiceError if code is ErrorCodes.ENHANCE_YOUR_CALM else ProtocolError)(message)
