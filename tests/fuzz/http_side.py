"""Fuzzed requests over HTTP/1.1: one behind another on connections that are kept; crooked framing apart.

A request gets a response, or its connection ends after one that said so; anything else is Wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.fuzz.connection import RECV_BYTES, broken_off, connected, send
from tests.fuzz.http_requests import Requests
from tests.fuzz.tally import Tally, Wrong

_REQUESTS = 16
_CONNECTION_REQUESTS = 2_000
# So many batches end with a request that may end the connection.
_CROOKED = 0.4
_BODILESS = {204, 304}
_SERVER_FAULTS = 500
_MAY_BE = {503, 504}


class Connection:
    """One connection, on which some requests are on their way at a time."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._tally = tally
        self._socket = connected(port)
        self._unread = b""
        self._waiting: list[bytes] = []
        self._sent = 0
        self.over = False

    def begin(self, requests: Iterator[bytes], last: Sequence[bytes] = ()) -> None:
        """Sends some, and behind them `last`."""
        self._waiting = [*(next(requests) for _ in range(_REQUESTS)), *last]
        self._sent += len(self._waiting)
        self._send(b"".join(self._waiting))

    def finish(self) -> None:
        """Reads until each is answered, or the connection ends after an answer that said so. Raises Wrong."""
        for number, request in enumerate(self._waiting):
            status, closing = self._response(request)
            self._tally.note(str(status))
            if status >= _SERVER_FAULTS and status not in _MAY_BE:
                raise Wrong(f"status {status} for {request!r}")
            if closing:
                self._tally.cut_off += len(self._waiting) - number - 1
                self.over = True
                break
        self.over = self.over or self._sent >= _CONNECTION_REQUESTS
        if self.over:
            self._socket.close()

    def break_off(self, data: bytes) -> None:
        """Sends something and no more; the server may answer, and has to end the connection."""
        self._send(data)
        answer = broken_off(self._socket, data)
        if answer.startswith((b"HTTP/1.1 500", b"HTTP/1.0 500")):
            raise Wrong(f"{answer[:200]!r} for {data!r}")
        self._tally.cut_off += 1

    def _send(self, data: bytes) -> None:
        send(self._socket, data, lambda: self._waiting)

    def _response(self, request: bytes) -> tuple[int, bool]:
        """Its status, and whether the connection ends with it."""
        head = self._until(b"\r\n\r\n", request).lower()
        status = int(head[9:12])
        if status == 100:
            return self._response(request)
        fields = dict(line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
        if b"transfer-encoding" in fields:
            while size := int(self._until(b"\r\n", request), 16):
                self._exactly(size + 2, request)
            self._until(b"\r\n", request)
        elif status not in _BODILESS:
            self._exactly(int(fields[b"content-length"]), request)
        # What can't be parsed is answered in HTTP/1.0, and takes along what came with it.
        closing = head.startswith(b"http/1.0") or b"close" in fields.get(b"connection", b"")
        return status, closing

    def _until(self, mark: bytes, request: bytes) -> bytes:
        while (at := self._unread.find(mark)) < 0:
            self._more(request)
        found, self._unread = self._unread[:at], self._unread[at + len(mark) :]
        return found

    def _exactly(self, size: int, request: bytes) -> None:
        while len(self._unread) < size:
            self._more(request)
        self._unread = self._unread[size:]

    def _more(self, request: bytes) -> None:
        try:
            data = self._socket.recv(RECV_BYTES)
        except TimeoutError:
            raise Wrong(f"no answer to {request!r}") from None
        except ConnectionError:
            data = b""
        if not data:
            raise Wrong(f"the connection ended, unsaid, on {request!r}, in {self._waiting!r}")
        self._unread += data


def run(port: int, seed: int, connections: int) -> Iterator[Tally]:
    """Requests without end; yields now and then. Raises Wrong."""
    rng, tally = random.Random(f"{seed}/http"), Tally()
    made = Requests(rng)
    requests = iter(made)
    open_: list[Connection] = []
    while True:
        while len(open_) < connections:
            open_.append(Connection(port, tally))
            open_[-1].begin(requests)
        for connection in open_:
            connection.finish()
            if not connection.over:
                connection.begin(requests, [made.crooked()] if rng.random() < _CROOKED else ())
        open_ = [each for each in open_ if not each.over]
        if rng.random() < 0.1:
            Connection(port, tally).break_off(made.malformed())
        yield tally
