"""h2's accounts of one connection, kept for the frames that the lane takes and sends: windows, streams, and the
tables of header compression.

They stay h2's own, so that both count alike; no other part of the lane touches h2's insides. It neither reads nor
writes a frame.
"""

from __future__ import annotations

from h2.connection import ConnectionInputs, ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.stream import StreamClosedBy

from ingestor.transport.grpc import wire
from ingestor.transport.grpc.lane.call import Call
from ingestor.transport.grpc.opening import SharedDecoder


class Accounts:
    """Those of one connection. `stream_window` is what clients may send on a stream unasked, `frame_bytes_max` the
    longest frame's payload; `decoder` reads header blocks for both."""

    __slots__ = ("_h2", "decoder", "frame_bytes_max", "stream_window")

    def __init__(self, h2: H2Connection) -> None:
        self._h2 = h2
        self.decoder = h2.decoder = SharedDecoder(h2.decoder)
        # Both were said as the connection began, once and for all.
        self.stream_window = h2.local_settings.initial_window_size
        self.frame_bytes_max = h2.max_inbound_frame_size

    def is_new(self, stream_id: int) -> bool:
        """Whether a client may open this stream now."""
        return stream_id % 2 == 1 and stream_id > self._h2.highest_inbound_stream_id

    def opened(self, stream_id: int) -> None:
        """The lane has taken this new stream."""
        h2 = self._h2
        if h2.state_machine.state is ConnectionState.IDLE:
            h2.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        h2.highest_inbound_stream_id = stream_id

    def reset(self, stream_id: int) -> None:
        """The lane resets this stream."""
        self._h2._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM

    def was_reset(self, stream_id: int) -> bool:
        """Whether we have reset this stream, as far as is remembered."""
        return self._h2._closed_streams.get(stream_id) is StreamClosedBy.SEND_RST_STREAM

    def received(self, size: int) -> int:
        """So many bytes of DATA came: what is to be credited to the connection for them by now. Raises
        ProtocolError."""
        manager = self._h2._inbound_flow_control_window_manager
        if size > manager.current_window_size:
            raise self.broken(ErrorCodes.FLOW_CONTROL_ERROR, "more data than the window allows")
        manager.window_consumed(size)
        return manager.process_bytes(size) or 0

    def widened(self, call: Call, missing: int) -> int:
        """What is to be credited to a request, of which `missing` bytes are known to be still to come: the client
        may send all of them."""
        usual = self.stream_window
        if call.window >= max(usual // 2, missing):
            return 0
        increment = max(usual, missing) - call.window
        call.window += increment
        return increment

    def credited(self, increment: int) -> bool:
        """The client lets us send so much more on the connection. Says whether that can be."""
        window = self._h2.outbound_flow_control_window + increment
        if not increment or window > wire.WINDOW_MAX:
            return False
        self._h2.outbound_flow_control_window = window
        return True

    def credited_for(self, call: Call, increment: int) -> ErrorCodes | None:
        """The same for one call's answer. Says what is wrong with it, if anything."""
        call.credit += increment
        if not increment:
            return ErrorCodes.PROTOCOL_ERROR
        window = self._h2.remote_settings.initial_window_size + call.credit - call.sent
        return ErrorCodes.FLOW_CONTROL_ERROR if window > wire.WINDOW_MAX else None

    def let_out(self, call: Call, size: int) -> int:
        """Takes what the next frame of an answer may have from the client's windows, `size` bytes at most. 0 where
        there is nothing left in one of them."""
        h2 = self._h2
        window = h2.remote_settings.initial_window_size + call.credit - call.sent
        size = min(size, h2.outbound_flow_control_window, window, h2.max_outbound_frame_size)
        if size <= 0:
            return 0
        h2.outbound_flow_control_window -= size
        call.sent += size
        return size

    @property
    def sent_frame_bytes_max(self) -> int:
        """The longest frame's payload that the client takes."""
        return self._h2.max_outbound_frame_size

    def resized(self) -> bytes:
        """What the next header block has to begin with, whoever sends it, where the client has changed its table's
        size; else nothing."""
        encoder = self._h2.encoder
        return encoder.encode([]) if encoder.header_table.resized else b""

    def broken(self, code: ErrorCodes, message: str) -> ProtocolError:
        """Has h2 end the connection with a GOAWAY that says so: what is to be raised for that."""
        self._h2._terminate_connection(code)
        return (DenialOfServiceError if code is ErrorCodes.ENHANCE_YOUR_CALM else ProtocolError)(message)
