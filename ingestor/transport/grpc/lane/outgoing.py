"""What the lane sends on one connection, a turn of the event loop's frames in one write.

It knows neither calls nor windows: who gives it a frame may send it. The connection's farewell hears of calls that
have ended once the last of their frames is handed over.
"""

from __future__ import annotations

import asyncio

from grpclib.protocol import Connection
from h2.errors import ErrorCodes

from ingestor.transport.grpc import wire
from ingestor.transport.grpc.farewell import Farewell, Stage
from ingestor.transport.grpc.lane.accounts import Accounts


class Outgoing:
    """The frames that wait for the end of this turn. `some_ended` is set when calls have ended, of which the
    farewell does not know yet."""

    __slots__ = ("_accounts", "_connection", "_farewell", "_frames", "_loop", "some_ended")

    def __init__(self, connection: Connection, farewell: Farewell, accounts: Accounts) -> None:
        self._connection = connection
        self._farewell = farewell
        self._accounts = accounts
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self.some_ended = False

    @property
    def waits(self) -> bool:
        """Whether there are any."""
        return bool(self._frames)

    @property
    def writable(self) -> bool:
        """Whether anything may still be written."""
        return self._farewell.stage is not Stage.ENDED and not self._connection.is_closing()

    def send(self, frame: bytes) -> None:
        """Sends it with what else this turn has to send."""
        if not self._frames:
            self._loop.call_soon(self._flush)
        self._frames.append(frame)

    def headers(self, stream_id: int, block: bytes, *, ends: bool) -> None:
        """Sends a header block."""
        # A change of the client's table size is to be told in the next block, whoever sends it; and then that has
        # to leave before h2 encodes another.
        resized = self._accounts.resized()
        limit = self._accounts.sent_frame_bytes_max
        for frame in wire.header_frames(stream_id, resized + block, limit, end_stream=ends):
            self.send(frame)
        if resized:
            self._flush()

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """Ends a stream."""
        self._accounts.reset(stream_id)
        self.send(wire.number_frame(wire.RST_STREAM, stream_id, code))

    def tell_soon(self) -> None:
        """Tells the farewell of calls that ended without a frame."""
        # Not at once: it may end our side of the connection, and what came in the same packet may want an answer.
        self._loop.call_soon(self._tell_farewell)

    def forget(self) -> None:
        """Nobody reads any more."""
        self._frames.clear()

    def _flush(self) -> None:
        if self._frames and self.writable:
            frames, self._frames = self._frames, []
            self._connection._transport.write(b"".join(frames))
        self._tell_farewell()  # also where what it waits for left before the turn's end

    def _tell_farewell(self) -> None:
        if self.some_ended and not self._frames:
            self.some_ended = False
            self._farewell.call_ended()
