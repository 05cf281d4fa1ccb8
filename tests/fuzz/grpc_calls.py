"""Fuzzed calls, as header blocks and data: messages that mutations made, crooked framing and headers.

Made from a random source alone; nothing is sent here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from ingestor.transport.grpc import wire
from tests.fuzz import corpus
from tests.fuzz.mutations import BINARY, compressed, mutated

_SERVICE = "/analytics.v1.AnalyticsService/"
_PATHS = [
    "",
    "/",
    "*",
    "/%2e%2e",
    f"{_SERVICE}Nothing",
    f"{_SERVICE}LogMetric/",
    "/a/b/c",
    "\xff",
    "/x" * 500,
]
_EXTRA = [
    *(
        ("grpc-timeout", each)
        for each in ("1m", "0n", "99999999H", "-1S", "1", "1e3S", "123456789S", "", "\xb2S")
    ),
    *(("grpc-encoding", each) for each in ("gzip", "identity", "br", "", "gzip, gzip")),
    *(("x-trace-bin", each) for each in ("AA==", "A", "%%%", "\xff")),
    *(
        ("content-type", each)
        for each in ("text/plain", "application/grpc+json", "application/grpc+proto", "")
    ),
    *(("te", each) for each in ("", "gzip")),
    *(("user-agent", each) for each in ("\xe4", "a" * 4000, "\t")),
    *(("authorization", each) for each in ("Bearer x", "Basic", "\x80")),
    *((each, "1") for each in ("connection", "Upper", "", ":path", ":odd", "x y", "content-length", "host")),
    ("grpc-accept-encoding", "zstd"),
]


class Call(NamedTuple):
    """A header block and what follows it."""

    block: bytes
    data: bytes


class Calls:
    """Calls without end, from a seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._messages = corpus.messages(rng)
        self._good = {each: _block(f"{_SERVICE}{each}") for each in corpus.METHODS}
        # A tail has no end of its own.
        self._good[corpus.TAIL_METRICS] = _block(f"{_SERVICE}TailMetrics", grpc_timeout="1m")
        self._gzip = {each: _block(f"{_SERVICE}{each}", grpc_encoding="gzip") for each in corpus.METHODS[:6]}
        self._crooked = [self._crooked_block() for _ in range(500)]

    def __iter__(self) -> Iterator[Call]:
        rng = self._rng
        while True:
            for method in rng.choices(corpus.METHODS, corpus.WEIGHTS, k=1_000):
                yield self._call(method)

    def _call(self, method: str) -> Call:
        rng = self._rng
        body = mutated(rng, self._messages[method], BINARY)
        chance = rng.random()
        if chance < 0.85 or method == corpus.TAIL_METRICS:
            block = self._good[method] if chance < 0.81 else rng.choice(self._crooked)
            return Call(block, _framed(body))
        if chance < 0.9:
            return Call(self._gzip[method], _framed(compressed(rng, body), flag=1))
        return Call(self._good[method], self._misframed(method, body))

    def _misframed(self, method: str, body: bytes) -> bytes:
        """Lengths that are not so, flags that there are not, more or less than one message."""
        rng = self._rng
        return rng.choice(
            [
                b"",
                b"\0\0\0",
                _framed(body)[: rng.randrange(len(body) + 5)],
                _framed(body, flag=rng.randrange(256)),
                b"\0" + rng.getrandbits(32).to_bytes(4) + body,
                b"\0" + max(0, len(body) + rng.randrange(-3, 4)).to_bytes(4) + body,
                _framed(body) + _framed(mutated(rng, self._messages[method], BINARY)),
                _framed(body) + b"\0",
            ]
        )

    def _crooked_block(self) -> bytes:
        rng = self._rng
        method = rng.choice(corpus.METHODS[:6])
        path = rng.choice(_PATHS) if rng.random() < 0.3 else f"{_SERVICE}{method}"
        headers = dict(_usual(path))
        for _ in range(rng.randrange(3)):
            headers.pop(rng.choice(list(headers)))
        extra = rng.sample(_EXTRA, rng.randrange(3))
        if rng.random() < 0.2:  # a name that comes twice
            name = rng.choice(_EXTRA)[0]
            extra += rng.choices([each for each in _EXTRA if each[0] == name], k=2)
        return wire.literals([*headers.items(), *extra])


def _usual(path: str) -> list[tuple[str, str]]:
    names = (":method", ":scheme", ":path", ":authority", "te", "content-type")
    return list(zip(names, ("POST", "http", path, "fuzz", "trailers", "application/grpc"), strict=True))


def _block(path: str, **more: str) -> bytes:
    extra = [(name.replace("_", "-"), value) for name, value in more.items()]
    return wire.literals([*_usual(path), *extra])


def _framed(body: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(body).to_bytes(4) + body
