"""Tells whoever counts them what became of calls; who that is, the transports don't know.

Each call is told once, when it has ended, by gRPC's code over both protocols.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from google.rpc.code_pb2 import Code

from ingestor.transport.status import code_of

CANCELLED = int(Code.CANCELLED)
OTHER = "other"
"""In place of the path, for all that is no rpc of ours: callers can name as many of those as they like."""


class Observed(Protocol):
    """A call has ended with gRPC's `code`, so many seconds after its headers came. Told on the event loop, for each
    call."""

    def __call__(self, code: int, seconds: float, /) -> None: ...


class Observe(Protocol):
    """Who is told of the calls of this rpc (or OTHER) over this protocol, `grpc` or `http`. Asked once, at the
    start."""

    def __call__(self, path: str, protocol: str, /) -> Observed: ...


class Observers(dict[str, Observed]):
    """Who is told, by the rpc's path; for any other path, who is told of OTHER."""

    def __init__(self, observe: Observe, protocol: str, paths: Iterable[str]) -> None:
        super().__init__({path: observe(path, protocol) for path in paths})
        self._other = observe(OTHER, protocol)

    def __missing__(self, path: str) -> Observed:
        return self._other


class Observation:
    """One call, which begins now, until its `end`. Its `path` and its `code` can be set once they are known."""

    __slots__ = ("_began_at", "_observers", "code", "path")

    def __init__(self, observers: Observers, path: str = OTHER) -> None:
        self._observers = observers
        self._began_at = time.monotonic()
        self.path = path
        self.code = 0

    def failed(self, error: BaseException) -> None:
        """What it will end by."""
        self.code = code_of(error)

    def end(self) -> None:
        """The call has ended, once."""
        self._observers[self.path](self.code, time.monotonic() - self._began_at)


def unobserved(path: str, protocol: str) -> Observed:
    """Nobody is told."""
    return _nobody


def _nobody(code: int, seconds: float) -> None:
    pass
