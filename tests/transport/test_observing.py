"""A call is told once, by the code of what ended it."""

from __future__ import annotations

import asyncio
import time

import pytest

from ingestor.errors import Invalid, NotStored
from ingestor.transport.observing import OTHER, Observation, Observed, Observers


class Told(list[tuple[str, str, int]]):
    """What was told: path, protocol and code; and how long each took."""

    def __init__(self) -> None:
        self.took_s: list[float] = []

    def observe(self, path: str, protocol: str) -> Observed:
        def told(code: int, seconds: float) -> None:
            self.append((path, protocol, code))
            self.took_s.append(seconds)

        return told


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid("bad"), 3),
        (NotStored("no"), 9),
        (asyncio.CancelledError(), 1),
        (RuntimeError("a bug"), 13),
        (ConnectionResetError(), 13),
    ],
)
def test_an_exception_has_its_code(error: BaseException, code: int) -> None:
    """Refusals that of the table, a cancelled task CANCELLED, all else INTERNAL."""
    told = Told()
    observers = Observers(told.observe, "http", ["/a.B/C"])
    observation = Observation(observers, "/a.B/C")
    observation.failed(error)
    observation.end()
    assert told == [("/a.B/C", "http", code)]


def test_a_call_without_an_exception_ends_as_it_says() -> None:
    """OK, or the code that a stream told in its last line."""
    told = Told()
    observers = Observers(told.observe, "http", ["/a.B/C"])
    observation = Observation(observers)
    observation.path = "/a.B/C"
    observation.end()
    observation = Observation(observers, "/a.B/C")
    observation.code = 4
    observation.end()
    assert told == [("/a.B/C", "http", 0), ("/a.B/C", "http", 4)]


def test_a_call_takes_from_its_beginning_to_its_end() -> None:
    """In seconds."""
    told = Told()
    before_s = time.monotonic()
    observation = Observation(Observers(told.observe, "http", []))
    begun_s = time.monotonic()
    ending_s = time.monotonic()
    observation.end()
    [took_s] = told.took_s
    assert ending_s - begun_s <= took_s <= time.monotonic() - before_s
    assert took_s > 0


def test_what_is_not_served_is_one_other() -> None:
    """Whatever the caller calls it; nothing is kept of the name."""
    told = Told()
    observers = Observers(told.observe, "grpc", ["/a.B/C"])
    for path in ("/a.B/D", "/a.B/E", ""):
        observers[path](12, 0.0)
    assert told == [(OTHER, "grpc", 12)] * 3
    assert list(observers) == ["/a.B/C"]
