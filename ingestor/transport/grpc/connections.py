"""A grpclib server that can be drained: every client is told to go elsewhere, and calls under way are answered.

grpclib 0.4.9's own close() cancels what is in flight and sends no GOAWAY, so that every deploy would lose
calls. How one connection ends is in `farewell`; here are grpclib's classes with it built in, and with what
else they lack to live with any client's bytes.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Handler, Server
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PingAckReceived, RequestReceived, StreamReset
from h2.exceptions import DenialOfServiceError, ProtocolError
from hyperframe.frame import PingFrame, WindowUpdateFrame
from loguru import logger

from ingestor.transport.admission import Gate
from ingestor.transport.bounds import BACKLOG, STREAMS_MAX
from ingestor.transport.grpc.allowance import Allowance
from ingestor.transport.grpc.beginning import begun
from ingestor.transport.grpc.calls import Calls, Methods
from ingestor.transport.grpc.farewell import Farewell, Stage
from ingestor.transport.grpc.floods import LOST_TASK
from ingestor.transport.grpc.headers import from_grpclib
from ingestor.transport.grpc.inbox import Inbox
from ingestor.transport.grpc.keepalive import Keepalive, Patience
from ingestor.transport.grpc.lane import Lane, Lanes
from ingestor.transport.grpc.tenure import Due, Seen, Tenure
from ingestor.transport.holding import Held
from ingestor.transport.observing import Observers
from ingestor.transport.share import Reason, Share
from ingestor.transport.tls import listen

# Who is idle for less may be about to call.
_IDLE_LONG_S = 1.0
# What a client has to read why its connection ends.
_LAST_WORD_S = 1.0
_PING_DATA = b"are you?"


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
        self.connections: set[_Connection] = set()
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

    def made(self, connection: _Connection) -> None:
        """A client has connected."""
        self.__gc_step__()
        self._handlers.add(connection.calls)
        self.connections.add(connection)
        if self.draining:
            connection.depart()

    def lost(self, connection: _Connection) -> None:
        """A client is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._deserted.set()

    def _protocol_factory(self) -> H2Protocol:
        return _Connection(self, _Handler(self))


class _Handler(Handler):
    """Runs a connection's calls, each as a task; refuses streams when the connection's farewell says so."""

    farewell: Farewell
    allowance: Allowance

    def __init__(self, server: DrainableServer) -> None:
        super().__init__({}, server._codec, server._status_details_codec, server.__dispatch__)
        self._calls = server.calls
        self._observers = server.observers

    @property
    def open(self) -> int:
        """How many calls are under way and still wanted."""
        return len(self._tasks)

    def accept(
        self, stream: H2Stream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]
    ) -> None:
        request = dict(headers)
        if from_grpclib(request):
            self.farewell.hangs_up = True
        if self.farewell.refuses:
            _reset(stream, ErrorCodes.REFUSED_STREAM)
            release_stream()
            return
        task = self.loop.create_task(self._calls.serve(stream, headers, self.allowance))
        self._tasks[stream] = task  # type: ignore[assignment] # grpclib's own return nothing
        # Not in the task itself, as grpclib does: cancelled before it began, it would leave its stream behind.
        observed = partial(self._observed, request.get(":path", ""), time.monotonic())
        task.add_done_callback(partial(self._ended, stream, release_stream, observed))

    def cancel(self, stream: H2Stream) -> None:
        if stream in self._tasks:
            super().cancel(stream)

    def _observed(self, path: str, began_at: float, code: Status) -> None:
        self._observers[path](code.value, time.monotonic() - began_at)

    def _ended(
        self,
        stream: H2Stream,
        release_stream: Callable[[], Any],
        observed: Callable[[Status], None],
        task: asyncio.Task[Status],
    ) -> None:
        self._tasks.pop(stream, None)
        self._cancelled.discard(task)
        stream.buffer.close()  # type: ignore[attr-defined] # an Inbox
        release_stream()
        if task.cancelled():
            observed(Status.CANCELLED)
        elif (error := task.exception()) is not None:
            logger.opt(exception=error).error("a call ended without an answer")
            _reset(stream, ErrorCodes.INTERNAL_ERROR)
            observed(Status.INTERNAL)
        else:
            observed(task.result())
            self.allowance.budget.earn()
        self.farewell.call_ended()


class _Connection(H2Protocol):
    """One client's connection, known to the server for as long as it is open."""

    farewell: Farewell
    connection: Connection
    _transport: asyncio.Transport

    def __init__(self, server: DrainableServer, calls: _Handler) -> None:
        super().__init__(calls, server._config, server._h2_config)
        self.calls = calls
        self._server = server
        self._keepalive: Keepalive | None = None
        share = self._share = server.share
        self._allowance = calls.allowance = Allowance(share.bounds, share.bodies(), share.answers())
        self._made_at = self._refilled_at = time.monotonic()
        self._tenure = Tenure(share.bounds, self._made_at, share.age_s())
        self._unread: Held | None = None  # what the client leaves so, when that is much

    @property
    def open_calls(self) -> int:
        """How many calls are under way and still wanted."""
        return self.calls.open + self._lane.open

    @property
    def in_flight(self) -> int:
        """The same, without answers that still wait for this turn's end."""
        return self.calls.open + self._lane.in_flight

    @property
    def is_known(self) -> bool:
        """Whether somebody known has called on it. Whoever needs no key may hold a connection with a Watch, or with
        a request that does not come to its end: a thousand of them would lock everybody out."""
        return self._allowance.acquaintance.made

    @property
    def spare_since(self) -> float:
        """Since when others may need it more: when it was last known to have a call, or was made."""
        if not self.is_known:
            return self._made_at
        if self.open_calls:
            return math.inf
        return max(self._tenure.idle_since, self.connection.last_stream_created or 0.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._refused = not self._server.has_room()
        if self._refused:
            self._share.cut_off("grpc", "too_many")
            self.calls.close()
            transport.abort()
            return
        self.connection = begun(transport, self.config, self.h2_config)
        self.farewell = self.calls.farewell = Farewell(self.connection, lambda: self.open_calls)
        self.processor = _Events(self.calls, self.connection, self.farewell, lambda: self._lane.in_flight)
        self._lane = Lane(self._server.lanes, self.connection, self.processor, self.farewell, self._allowance)
        self._server.made(self)
        self._keepalive = Keepalive(self._server.patience, self._ping, self._given_up)

    def data_received(self, data: bytes) -> None:
        if self._keepalive is not None:
            self._keepalive.heard()
        # At the end data is still read, lest the kernel reset the connection, but can't be answered any more.
        if self.farewell.stage is Stage.ENDED or self.connection.is_closing():
            return
        try:
            self._lane.feed(data)
        except ProtocolError as error:
            logger.debug("a client breaks HTTP/2: {}", error)
            if isinstance(error, DenialOfServiceError):
                self._share.cut_off("grpc", "flood")
            self._end_for(str(error))

    def pause_writing(self) -> None:
        """The client does not read: nor is it read from, so that what it asks for does not pile up here."""
        super().pause_writing()
        self._unread = self._share.unread.begin(partial(self.cut_off_for, "unread"))
        self._unread.grow(self._transport.get_write_buffer_size())
        if not self._transport.is_closing() and self.farewell.stage is not Stage.ENDED:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_again()
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._lane.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._keepalive is not None:
            self._keepalive.stop()
        if self._refused:
            return
        self._read_again()
        self.farewell.connection_lost()
        self._lane.connection_lost()
        super().connection_lost(exc)
        self._server.lost(self)

    def depart(self) -> None:
        """Tells the client to go elsewhere, and ends when its calls are answered."""
        self.farewell.begin()
        self._allowance.closing.begin()

    def cut_off(self) -> None:
        """Closes it now, whatever the client has not read yet."""
        self.connection.close()
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # a client that doesn't read would keep close() waiting

    def cut_off_for(self, reason: Reason) -> None:
        """The same, for what its client did."""
        self._share.cut_off("grpc", reason)
        self.cut_off()

    def give_way(self) -> None:
        """The same for one that takes its place: over TLS it would stay until the client has answered the end."""
        self.cut_off_for("too_many")
        self._transport.abort()

    def _ping(self) -> None:
        if self.farewell.stage is not Stage.ENDED and not self.connection.is_closing():
            self.connection.flush()
            self._transport.write(PingFrame(0, opaque_data=_PING_DATA).serialize())

    def _given_up(self) -> None:
        logger.debug("a client is gone without a word: it was pinged and did not answer")
        self.cut_off_for("silent")

    def check(self, now: float) -> None:
        """Does what is due by now."""
        self._allowance.budget.refill(now - self._refilled_at)
        self._refilled_at = now
        self._allowance.closing.check(now)
        unread = None if self.connection.write_ready.is_set() else self._transport.get_write_buffer_size()
        if unread is not None and self._keepalive is not None:
            self._keepalive.heard()  # what it says is not read, since it does not read
        last_call_at = self.connection.last_stream_created or 0.0
        seen = Seen(self._lane.heard, self._lane.partial, self.open_calls, last_call_at, unread)
        match self._tenure.due(now, seen):
            case Due.CUT:
                logger.debug("a client is cut off: it neither says nor reads anything")
                self.cut_off_for("slow" if unread is None else "unread")
            case Due.DEPART:
                if self.farewell.stage is Stage.SERVING:
                    self._share.cut_off("grpc", "age" if self._tenure.is_old(now) else "idle")
                self.depart()
        if not self.connection.is_closing() and self.farewell.stage is not Stage.ENDED:
            self._lane.check(now)

    def _read_again(self) -> None:
        if self._unread is not None:
            self._unread.end()
            self._unread = None

    def _end_for(self, reason: str) -> None:
        """Ends it with the GOAWAY that h2 has prepared, and which the client is given time to read: to close a
        socket with something unread in it makes the kernel send a reset, which overtakes what was written."""
        if self.connection.is_closing():
            self.processor.close(reason)
            return
        self.connection.flush()
        self.farewell.stage = Stage.ENDED
        self.farewell.connection_lost()
        self._lane.connection_lost()
        self.calls.close()
        for stream in self.processor.streams.values():
            stream.__terminated__(reason)
        try:
            if self._transport.can_write_eof():
                self._transport.write_eof()
        except OSError:  # the client was faster
            self._transport.abort()
        else:
            asyncio.get_running_loop().call_later(_LAST_WORD_S, self._transport.abort)


class _Events(EventsProcessor):
    """What HTTP/2 frames mean, with gaps of grpclib's closed."""

    def __init__(
        self, handler: _Handler, connection: Connection, farewell: Farewell, others: Callable[[], int]
    ) -> None:
        super().__init__(handler, connection)
        self._farewell = farewell
        self._others = others  # how many calls the lane has
        self._allowance = handler.allowance

    def process(self, event: Event) -> None:
        # grpclib 0.4.9 ends the connection at the frames of an extension, which RFC 9113 (5.5) says to ignore: so
        # it is given only what it knows.
        if event.__class__ in getattr(self, "processors", ()):
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        h2 = self.connection._connection
        if len(self.streams) + self._others() >= STREAMS_MAX:
            self._allowance.budget.spend(LOST_TASK)
            h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        stream = self.connection.create_stream(stream_id=event.stream_id)
        stream.buffer = Inbox(partial(self._credit, event.stream_id), self._allowance.bodies)
        self.handler.accept(stream, event.headers, self.register(stream))  # type: ignore[arg-type] # are text

    def process_stream_reset(self, event: StreamReset) -> None:
        if not event.remote_reset:
            # The client broke a rule, and h2 reset the stream: as cheap a way to begin calls for nothing.
            self._allowance.budget.spend(LOST_TASK)
        super().process_stream_reset(event)

    def process_data_received(self, event: DataReceived) -> None:
        # The connection's window is given back at once, else a stream that is not read would hold up all others of
        # its connection. What lies here is bounded by the streams' own windows and their number.
        h2 = self.connection._connection
        if increment := h2._inbound_flow_control_window_manager.process_bytes(event.flow_controlled_length):
            h2._prepare_for_sending([WindowUpdateFrame(0, window_increment=increment)])
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.buffer.add(event.data, event.flow_controlled_length)

    def _credit(self, stream_id: int, size: int) -> None:
        """The client may send so much more on this stream."""
        h2 = self.connection._connection
        stream = h2.streams.get(stream_id)
        if stream is not None and not self.connection.is_closing():
            h2._prepare_for_sending(stream.acknowledge_received_data(size))
            self.connection.flush()

    def process_ping_ack_received(self, event: PingAckReceived) -> None:
        super().process_ping_ack_received(event)
        self._farewell.ping_answered(event.ping_data)


def _reset(stream: H2Stream, code: ErrorCodes) -> None:
    if stream.closable:  # the client's own reset may have come in the same packet
        stream.reset_nowait(code)
