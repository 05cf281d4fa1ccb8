"""What HTTP/2's events mean for the calls that go grpclib's way, with gaps of grpclib 0.4.9's own processor closed.

It ends no connection for what it does not know, and lets no stream that is not read hold up the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from grpclib.protocol import Connection, EventsProcessor
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PingAckReceived, RequestReceived, StreamReset
from hyperframe.frame import WindowUpdateFrame

from ingestor.transport.bounds import STREAMS_MAX
from ingestor.transport.grpc.farewell import Farewell
from ingestor.transport.grpc.floods import LOST_TASK
from ingestor.transport.grpc.handler import StreamHandler
from ingestor.transport.grpc.inbox import Inbox


class Events(EventsProcessor):
    """Those of one connection. `others` is asked how many calls there are beside."""

    def __init__(
        self, handler: StreamHandler, connection: Connection, farewell: Farewell, others: Callable[[], int]
    ) -> None:
        super().__init__(handler, connection)
        self._farewell = farewell
        self._others = others
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
