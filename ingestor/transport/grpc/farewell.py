"""Ends one HTTP/2 connection so that no call on it is lost, and none is taken that can't be answered.

As gRPC's own servers do (RFC 9113, 6.8): first a GOAWAY that still allows every stream, with a PING behind it.
The client answers the PING after it has read the GOAWAY, and from then on opens no streams here; all that it
opened before have arrived and are served. Then a GOAWAY with the last stream that was taken: what comes after
it, clients send elsewhere by themselves. When the calls are answered we end our side and read on until the
client ends its own: to close a socket with something unread in it makes the kernel send a reset, which also
destroys the answers that the client has not read yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum, auto

from grpclib.protocol import Connection
from h2.errors import ErrorCodes
from hyperframe.frame import Frame, GoAwayFrame, PingFrame

# How long a client may take to answer the PING, and then to end its side. One without calls has little to lose.
_PATIENCE_S = 1.0
_PATIENCE_QUIET_S = 0.5
_QUIET_AFTER_S = 1.0
_STREAM_ID_MAX = 2**31 - 1
_PING_DATA = b"farewell"


class Stage(Enum):
    """How far it is. REFUSING: no more streams are taken. ENDED: our side is closed, nothing may be written."""

    SERVING = auto()
    WARNED = auto()
    REFUSING = auto()
    ENDED = auto()


class Farewell:
    """The end of one connection; `begin` starts it, and it must hear of PINGs answered and of calls ended.

    `hangs_up` says that the client is one that drops its calls as soon as it reads a GOAWAY, as grpclib's (and so
    betterproto2's) does. Its streams are refused from the start, and GOAWAY waits until its calls are answered.
    """

    def __init__(self, connection: Connection, open_calls: Callable[[], int]) -> None:
        self.stage = Stage.SERVING
        self.hangs_up = False
        self._connection = connection
        self._open_calls = open_calls
        self._timer: asyncio.TimerHandle | None = None
        self._then: Callable[[], None] | None = None

    @property
    def refuses(self) -> bool:
        """Whether a stream that comes now must be refused."""
        return self.stage is Stage.REFUSING or (self.hangs_up and self.stage is not Stage.SERVING)

    def begin(self) -> None:
        """The first GOAWAY; what follows happens by itself."""
        if self.stage is not Stage.SERVING or self._connection.is_closing():
            return
        if self.hangs_up:
            self.stage = Stage.REFUSING
            self.call_ended()
        else:
            self.stage = Stage.WARNED
            self._write(_go_away(_STREAM_ID_MAX))
            self._when_read(self._refuse)

    def ping_answered(self, data: bytes) -> None:
        """The client answered a PING: ours, or keepalive's."""
        if data == _PING_DATA:
            # Not at once: what came in the same packet is not yet dealt with, and may have to be written to.
            asyncio.get_running_loop().call_soon(self._go_on)

    def call_ended(self) -> None:
        """A call was answered or given up."""
        if self.stage is not Stage.REFUSING or self._open_calls() or self._connection.is_closing():
            return
        if self.hangs_up:
            # It would also drop an answer that it reads in one go with GOAWAY.
            if self._then is None:
                self._when_read(self._end)
        else:
            self._end()

    def connection_lost(self) -> None:
        """The connection is gone, in order or not."""
        self._cancel_timer()

    def _refuse(self) -> None:
        self.stage = Stage.REFUSING
        if not self._connection.is_closing():
            self._write(self._last_go_away())
        self.call_ended()

    def _when_read(self, then: Callable[[], None]) -> None:
        """Goes on with `then` when the client has read all that was written, or has taken too long."""
        self._then = then
        self._write(PingFrame(0, opaque_data=_PING_DATA))
        self._after(self._patience_s(), self._go_on)

    def _go_on(self) -> None:
        then, self._then = self._then, None
        self._cancel_timer()
        if then is not None:
            then()

    def _end(self) -> None:
        if self._open_calls():
            return  # an answer is about to leave: `call_ended` will come again
        self.stage = Stage.ENDED
        if self._connection.is_closing():
            return
        if self.hangs_up:
            self._write(self._last_go_away())
        transport = self._connection._transport
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:  # the client was faster
            self._connection.close()
        else:
            self._after(self._patience_s(), self._connection.close)

    def _patience_s(self) -> float:
        last = self._connection.last_stream_created
        quiet = last is None or time.monotonic() - last > _QUIET_AFTER_S
        return _PATIENCE_QUIET_S if quiet and not self._open_calls() else _PATIENCE_S

    def _last_go_away(self) -> GoAwayFrame:
        return _go_away(self._connection._connection.highest_inbound_stream_id)

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _write(self, *frames: Frame) -> None:
        # Past h2, whose close_connection() would forbid us to answer the streams that are open.
        self._connection.flush()
        self._connection._transport.write(b"".join(frame.serialize() for frame in frames))


def _go_away(last_stream_id: int) -> GoAwayFrame:
    return GoAwayFrame(0, last_stream_id=last_stream_id, error_code=ErrorCodes.NO_ERROR)
