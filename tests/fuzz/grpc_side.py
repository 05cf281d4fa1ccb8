"""Fuzzed calls over HTTP/2: many at once on each connection, some connections broken on purpose.

A call ends with a status, a reset, or its connection's end after a GOAWAY; anything else is Wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from hpack import Decoder

from ingestor.transport.grpc import wire
from tests.fuzz.connection import RECV_BYTES, broken_off, connected, send
from tests.fuzz.grpc_calls import Call, Calls
from tests.fuzz.mutations import BINARY
from tests.fuzz.tally import Tally, Wrong
from tests.hostile.wire_client import GOAWAY, PREFACE, SETTINGS

_CALLS = 60
_CONNECTION_CALLS = 6_000
_DATA_MAX = 16_384
# Less of the connection's window than this: it is waited for more.
_WINDOW_LOW = 32_768
_STATUS = re.compile(rb"grpc-status[\x01\x02](\d+)")
# What is no gRPC is told so by HTTP's status; the gRPC status beside it is UNKNOWN by convention.
_NEVER = {"2", "13", "15"}
_WINDOWS = wire.frame(SETTINGS, 0, 0, b"\0\4" + wire.WINDOW_MAX.to_bytes(4)) + wire.number_frame(
    wire.WINDOW_UPDATE, 0, wire.WINDOW_MAX - 2**16
)


class Connection:
    """One connection, on which a batch of calls is on its way at a time."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._tally = tally
        self._socket = connected(port)
        self._decoder = Decoder()
        self._unread = b""
        self._block = b""
        self._next = 1
        self._window = 65_535
        self._waiting: dict[int, Call] = {}
        self._told_off = False
        self.over = False
        self._send(PREFACE + _WINDOWS)

    def begin(self, calls: Iterator[Call]) -> None:
        """Sends a batch, as much as the window lets through."""
        pieces = []
        while len(self._waiting) < _CALLS and self._window >= _WINDOW_LOW // 2:
            call = next(calls)
            self._waiting[self._next] = call
            self._window -= len(call.data)
            pieces.append(wire.frame(wire.HEADERS, wire.END_HEADERS, self._next, call.block))
            pieces.append(wire.frame(wire.DATA, wire.END_STREAM, self._next, call.data[:_DATA_MAX]))
            self._next += 2
        self._send(b"".join(pieces))

    def finish(self) -> None:
        """Reads until every call has its end. Raises Wrong."""
        while not self.over and (self._waiting or self._window < _WINDOW_LOW):
            try:
                data = self._socket.recv(RECV_BYTES)
            except TimeoutError:
                raise Wrong(f"no answer, window {self._window}, to {self._some()}") from None
            except ConnectionError:
                # What the server said last may be lost where it did not read all that came.
                data, self._told_off = b"", True
            if not data:
                self._ended()
            self._read(data)
        self.over = self.over or self._next > 2 * _CONNECTION_CALLS
        if self.over:
            self._socket.close()

    def break_off(self, data: bytes) -> None:
        """Sends something and no more; the server has to end the connection."""
        self._send(data)
        broken_off(self._socket, data)
        self._tally.cut_off += 1

    def _send(self, data: bytes) -> None:
        send(self._socket, data, self._some)

    def _ended(self) -> None:
        if self._waiting and not self._told_off:
            raise Wrong(f"the connection ended without GOAWAY on {self._some()}")
        self._tally.cut_off += len(self._waiting)
        self._waiting.clear()
        self.over = True

    def _some(self) -> str:
        return "; ".join(f"{call.block!r} {call.data.hex()}" for call in list(self._waiting.values())[:3])

    def _read(self, data: bytes) -> None:
        data, at = self._unread + data, 0
        while at + wire.FRAME_HEADER_BYTES <= len(data):
            start = wire.read_start(data, at)
            end = at + wire.FRAME_HEADER_BYTES + start.length
            if end > len(data):
                break
            self._frame(start, data[at + wire.FRAME_HEADER_BYTES : end])
            at = end
        self._unread = data[at:]

    def _frame(self, start: wire.Start, payload: bytes) -> None:
        if start.type in (wire.HEADERS, wire.CONTINUATION):
            self._block += payload
            if start.flags & wire.END_HEADERS:
                block, self._block = self._block, b""
                status = self._status(block)
                if start.flags & wire.END_STREAM:
                    self._answered(start.stream_id, status)
        elif start.type == wire.DATA and start.flags & wire.END_STREAM:
            raise Wrong(f"ended without a status: {self._waiting.get(start.stream_id)}")
        elif start.type == wire.RST_STREAM:
            self._answered(start.stream_id, f"reset {int.from_bytes(payload)}")
        elif start.type == wire.WINDOW_UPDATE and not start.stream_id:
            self._window += int.from_bytes(payload)
        elif start.type == GOAWAY:
            self._told_off = True
            self._tally.note(f"goaway {int.from_bytes(payload[4:8])}")
        elif start.type == wire.PING and not start.flags & wire.ACK:
            self._send(wire.frame(wire.PING, wire.ACK, 0, payload))
        elif start.type == SETTINGS and not start.flags & wire.ACK:
            self._send(wire.frame(SETTINGS, wire.ACK, 0, b""))

    def _status(self, block: bytes) -> str:
        """The server's own blocks are literal and leave the compression state alone; the library's are not."""
        if block.startswith(b"\0"):
            found = _STATUS.search(block)
            return found[1].decode() if found else "none"
        headers = {bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)}
        http = headers.get(b":status", b"200")
        return (headers.get(b"grpc-status", b"none") if http == b"200" else b"http " + http).decode()

    def _answered(self, stream: int, status: str) -> None:
        call = self._waiting.pop(stream, None)
        if call is None:
            return  # reset after its answer
        self._tally.note(status)
        if status in _NEVER or status == "reset 2":
            raise Wrong(f"status {status} for {call.block!r} {call.data.hex()}")


def run(port: int, seed: int, connections: int) -> Iterator[Tally]:
    """Calls without end; yields now and then. Raises Wrong."""
    rng, tally = random.Random(f"{seed}/grpc"), Tally()
    calls = iter(Calls(rng))
    open_: list[Connection] = []
    while True:
        while len(open_) < connections:
            open_.append(Connection(port, tally))
            open_[-1].begin(calls)
        for connection in open_:
            connection.finish()
            if not connection.over:
                connection.begin(calls)
        open_ = [each for each in open_ if not each.over]
        if rng.random() < 0.1:
            _break_a_connection(port, rng, calls, tally)
        yield tally


def _break_a_connection(port: int, rng: random.Random, calls: Iterator[Call], tally: Tally) -> None:
    """Frames with wrong bytes, wrong types, streams and flags."""
    frames = bytearray()
    for number in range(rng.randrange(1, 6)):
        call, stream = next(calls), rng.choice([1 + 2 * number] * 8 + [0, 2, 2**31 - 1])
        frames += wire.frame(wire.HEADERS, wire.END_HEADERS, stream, call.block)
        frames += wire.frame(
            rng.choice([0, 0, 0, *range(12), 255]), rng.randrange(256), stream, call.data[:_DATA_MAX]
        )
    for _ in range(rng.randrange(4)):
        rng.choice(BINARY[:3] + BINARY[4:])(rng, frames)
    Connection(port, tally).break_off(bytes(frames[:200_000]))
