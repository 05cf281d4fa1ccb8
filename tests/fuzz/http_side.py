"""Fuzzed requests over HTTP/1.1: one behind another on connections that are kept; crooked framing apart.

A request gets a response, or its connection ends after one that said so; anything else is Wrong.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from tests.columns.fuzz import NAMES
from tests.fuzz import corpus
from tests.fuzz.mutations import TEXT, compressed, mutated
from tests.fuzz.tally import Tally, Wrong

_REQUESTS = 16
_CONNECTION_REQUESTS = 2_000
_ANSWERED_WITHIN_S = 60.0
# So many batches end with a request that may end the connection.
_CROOKED = 0.4
ROUTES = {
    corpus.LOG_METRIC: b"/v1/metrics",
    corpus.LOG_METRICS: b"/v1/metrics:batch",
    corpus.WRITE_SERIES: b"/v1/series:write",
    corpus.STREAM_METRICS: b"/v1/metrics:stream",
}
WEIGHTS = corpus.WEIGHTS[:4]
_VERBS = [*[b"POST"] * 6, b"GET", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"BREW"]
_HEADERS = [
    *(
        b"Content-Type: " + each
        for each in (b"text/plain", b"application/json; charset=x", b"", b";;", b"\xff")
    ),
    *(b"Grpc-Timeout: " + each for each in (b"1m", b"0n", b"99999999H", b"-1S", b"1", b"")),
    *(b"Grpc-Metadata-X-Bin: " + each for each in (b"AA==", b"A", b"%%%")),
    *(b"Grpc-Metadata-" + each for each in (b"X: \xc3\xa4", b": x", b"grpc-status: 0", b"te: x")),
    *(b"Accept-Encoding: " + each for each in (b"gzip", b"gzip;q=0", b"*;q=x", b"br, zstd", b"")),
    *(b"Content-Encoding: " + each for each in (b"br", b"gzip, gzip", b"identity", b"")),
    *(b"X-API-Key: " + each for each in (b"x", b"\xff", b"")),
    *(b"Authorization: " + each for each in (b"Bearer x", b"Basic", b"Bearer ")),
    *(b"Origin: " + each for each in (b"http://x", b"null", b"\xff")),
    *(b"If-None-Match: " + each for each in (b"*", b'"', b'W/"x"')),
    *(b"Expect: " + each for each in (b"100-continue", b"x")),
    *(b"Accept: " + each for each in (b"text/html", b"application/x-ndjson", b";q")),
]
_PAGES = [
    b"/",
    b"/healthz",
    b"/readyz",
    b"/metrics",
    b"/openapi.json",
    b"/docs",
    b"/v1",
    b"//",
    b"/%00",
    b"/..%2f",
]
_FIELDS = [
    *(
        b"start",
        b"end",
        b"interval",
        b"aggregation",
        b"labels[a]",
        b"labels",
        b"labels.a",
        b"pageSize",
        b"page_size",
    ),
    *(
        b"pageToken",
        b"servicePrefix",
        b"metric_prefix",
        b"unknown",
        b"",
        b"start.seconds",
        b"serviceName",
        b"%",
    ),
]
_VALUES = [
    *(
        b"",
        b"1",
        b"-1",
        b"2026-01-01T00:00:00Z",
        b"9999-12-31T23:59:59Z",
        b"60s",
        b"1e9s",
        b"avg",
        b"p95",
        b"x" * 300,
    ),
    *(b"%00", b"%ff", b"%", b"%zz", b"NaN", b"99999999999999999999", b"a=b", b"%ED%A0%80", b"+", b"null"),
]
_ENDS = [b"%3A", b"%", b"?a=b", b"//", b"#", b":x", b"%6d"]
_MALFORMED = [
    b"GET / HTTP/1.1\r\nHost fuzz\r\n\r\n",
    b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{}",
    b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
    b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\nContent-Length: 2\r\n\r\n{}",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET  / HTTP/1.1\r\n\r\n",
    b"\0\1\2\3\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 2_000 + b"\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
]
_BODILESS = {204, 304}
_SERVER_FAULTS = 500
_MAY_BE = {503, 504}


class Requests:
    """Requests without end, from a seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._documents = corpus.documents(rng)

    def __iter__(self) -> Iterator[bytes]:
        """Such as are read to their end, behind which the connection goes on."""
        rng = self._rng
        while True:
            for method in rng.choices(list(ROUTES), WEIGHTS, k=1_000):
                chance = rng.random()
                if chance < 0.97:
                    yield self._posted(method, chance)
                elif chance < 0.985:
                    yield _head(b"GET", target(rng))
                else:
                    yield _head(b"GET", rng.choice(_PAGES))

    def _posted(self, method: str, chance: float) -> bytes:
        rng = self._rng
        body, headers = mutated(rng, self._documents[method], TEXT), b""
        if chance < 0.1:
            headers, body = b"Content-Encoding: gzip\r\n", compressed(rng, body)
        if chance > 0.85:
            chunked = _head(b"POST", ROUTES[method], headers + b"Transfer-Encoding: chunked\r\n")
            return chunked + _chunked(rng, body)
        return _head(b"POST", ROUTES[method], headers + b"Content-Length: %d\r\n" % len(body)) + body

    def crooked(self) -> bytes:
        """One that is perhaps refused before its body is read, and the connection with it."""
        rng = self._rng
        method = rng.choice(list(ROUTES))
        verb, path, headers = b"POST", ROUTES[method], b""
        body, chance = mutated(rng, self._documents[method], TEXT), rng.random()
        if chance < 0.7:
            headers = b"".join(each + b"\r\n" for each in rng.sample(_HEADERS, rng.randrange(1, 4)))
        elif chance < 0.85:
            verb = rng.choice(_VERBS)
        else:
            path = path[: rng.randrange(1, len(path))] + rng.choice(_ENDS)
        return _head(verb, path, headers + b"Content-Length: %d\r\n" % len(body)) + body

    def malformed(self) -> bytes:
        """One that is not HTTP, or was."""
        rng = self._rng
        broken = bytearray(rng.choice(_MALFORMED) if rng.random() < 0.5 else next(iter(self))[:4_000])
        for _ in range(rng.randrange(4)):
            rng.choice(TEXT)(rng, broken)
        return bytes(broken)


def target(rng: random.Random) -> bytes:
    """A path with a query, of what reads."""
    fields = b"&".join(rng.choice(_FIELDS) + b"=" + rng.choice(_VALUES) for _ in range(rng.randrange(4)))
    if rng.random() < 0.5:
        return b"/v1/series?" + fields
    names = [quote(rng.choice(NAMES)).encode() if rng.random() < 0.8 else rng.choice(_VALUES) for _ in "ab"]
    return b"/v1/services/%b/metrics/%b:query?%b" % (*names, fields)


def _head(verb: bytes, path: bytes, headers: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: fuzz\r\n%b\r\n" % (verb, path, headers)


def _chunked(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    pieces = (each for each in (body[:at], body[at:]) if each)
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


class Connection:
    """One connection, on which some requests are on their way at a time."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._tally = tally
        self._socket = socket.create_connection(("127.0.0.1", port), _ANSWERED_WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        try:
            self._socket.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := self._socket.recv(2**18):
                answer = (answer + piece)[:4_000]
        except TimeoutError:
            raise Wrong(f"not ended after {data!r}") from None
        except OSError:
            answer = b""
        self._socket.close()
        if answer.startswith((b"HTTP/1.1 500", b"HTTP/1.0 500")):
            raise Wrong(f"{answer[:200]!r} for {data!r}")
        self._tally.cut_off += 1

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise Wrong(f"not read: {self._waiting}") from None
        except OSError:
            pass  # why is to be read

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
            data = self._socket.recv(2**18)
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
