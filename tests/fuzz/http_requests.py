"""Fuzzed requests over HTTP/1.1, as bytes: bodies that mutations made, crooked heads, and what is no HTTP.

Made from a random source alone; nothing is sent here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from urllib.parse import quote

from tests.columns.fuzz import NAMES
from tests.fuzz import corpus
from tests.fuzz.mutations import TEXT, compressed, mutated

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
