"""One client's connection: what comes goes to the lane, what is due is looked at now and then, and its end is told.

grpclib's own cancels what is in flight and says no GOAWAY when it is closed, and ends at whatever it does not
understand. How one that is drained ends is in `farewell`; here it is cut off, too, for what its client does or
leaves undone, and not before that can be read.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import Protocol, cast

from grpclib.config import Configuration
from grpclib.protocol import Connection, H2Protocol
from h2.config import H2Configuration
from h2.exceptions import DenialOfServiceError, ProtocolError
from hyperframe.frame import PingFrame
from loguru import logger

from ingestor.transport.grpc.beginning import begun
from ingestor.transport.grpc.events import Events
from ingestor.transport.grpc.farewell import Farewell, Stage
from ingestor.transport.grpc.handler import StreamHandler
from ingestor.transport.grpc.keepalive import Keepalive, Patience
from ingestor.transport.grpc.lane import Lane, Lanes
from ingestor.transport.grpc.tenure import Due, Seen, Tenure
from ingestor.transport.holding import Held
from ingestor.transport.share import Reason, Share

# What a client has to read why its connection ends.
_LAST_WORD_S = 1.0
_PING_DATA = b"are you?"


class Host(Protocol):
    """The server that a connection belongs to."""

    def has_room(self) -> bool:
        """Whether one more connection can be served."""

    def made(self, connection: ClientConnection) -> None:
        """A client has connected."""

    def lost(self, connection: ClientConnection) -> None:
        """A client is gone."""


class ClientConnection(H2Protocol):
    """One client's connection, known to its `host` for as long as it is open. `calls` are those that go grpclib's
    way."""

    farewell: Farewell
    connection: Connection
    _transport: asyncio.Transport

    def __init__(
        self,
        host: Host,
        calls: StreamHandler,
        *,
        lanes: Lanes,
        share: Share,
        patience: Patience,
        config: Configuration,
        h2_config: H2Configuration,
    ) -> None:
        super().__init__(calls, config, h2_config)
        self.calls = calls
        self._host = host
        self._lanes = lanes
        self._patience = patience
        self._keepalive: Keepalive | None = None
        self._share = share
        self._allowance = calls.allowance
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
        self._refused = not self._host.has_room()
        if self._refused:
            self._share.cut_off("grpc", "too_many")
            self.calls.close()
            transport.abort()
            return
        self.connection = begun(transport, self.config, self.h2_config)
        self.farewell = self.calls.farewell = Farewell(self.connection, lambda: self.open_calls)
        self.processor = Events(self.calls, self.connection, self.farewell, lambda: self._lane.in_flight)
        self._lane = Lane(self._lanes, self.processor, self.farewell, self._allowance)
        self._host.made(self)
        self._keepalive = Keepalive(self._patience, self._ping, self._given_up)

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
        self._host.lost(self)

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
