"""Blocking sockets that say HTTP/2 in bytes: an attacker keeps no state that would slow it down."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from hpack import Decoder

from ingestor.transport.grpc import wire

LOG_METRIC = "/analytics.v1.AnalyticsService/LogMetric"
LOG_METRICS = "/analytics.v1.AnalyticsService/LogMetrics"
STREAM_METRICS = "/analytics.v1.AnalyticsService/StreamMetrics"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, GOAWAY = 0x4, 0x7
RECV_BYTES = 2**16


def block(path: str = LOG_METRIC, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """A call's headers, each a literal: the same bytes for every stream."""
    usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    return wire.literals([*usual, *extra])


def streams(number: int, first: int = 1) -> range:
    """The ids of so many."""
    return range(first, first + 2 * number, 2)


class Frames:
    """A connection that has begun; `receive_bytes` makes the kernel's buffer for what comes small."""

    def __init__(self, port: int, *, receive_bytes: int = 0, settings: bytes = b"") -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self.send(PREFACE + wire.frame(SETTINGS, 0, 0, settings))
        self._unread = b""
        self._decoder = Decoder()

    def send(self, data: bytes) -> bool:
        """Says whether the server still took it."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def read(self) -> Iterable[tuple[wire.Start, bytes]]:
        """The frames that come, until the server ends the connection."""
        while True:
            while len(self._unread) >= wire.FRAME_HEADER_BYTES:
                start = wire.read_start(self._unread, 0)
                end = wire.FRAME_HEADER_BYTES + start.length
                if len(self._unread) < end:
                    break
                payload, self._unread = self._unread[wire.FRAME_HEADER_BYTES : end], self._unread[end:]
                yield start, payload
            try:
                data = self.socket.recv(RECV_BYTES)
            except (ConnectionError, TimeoutError):
                return
            if not data:
                return
            self._unread += data

    def goaway(self) -> int | None:
        """The error code with which the server ends the connection; None where it just ends."""
        for start, payload in self.read():
            if start.type == GOAWAY:
                return int.from_bytes(payload[4:8])
        return None

    def statuses(self, number: int) -> list[str]:
        """How so many streams end, in their order of ending: a grpc-status, or `reset` with its code. Fewer where
        the connection ends before."""
        found: dict[int, str] = {}
        for start, payload in self.read():
            if start.type == wire.RST_STREAM:
                found.setdefault(start.stream_id, f"reset {int.from_bytes(payload)}")
            elif start.type == wire.HEADERS:
                for name, value in self._decoder.decode(payload, raw=True):
                    if name == b"grpc-status":
                        found[start.stream_id] = bytes(value).decode()
            if len(found) >= number:
                break
        return list(found.values())
