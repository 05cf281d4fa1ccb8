"""A connection's calls are let in by what was decided of those before that were like them, and by nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import pytest

from ingestor.access import Gate, Key, Keys
from ingestor.access.gate import Admission
from ingestor.errors import Forbidden, TooFast, Unauthenticated
from ingestor.transport.http.entrance import Entrance, Header
from ingestor.transport.http.metadata import received
from tests.access.kit import NEEDS, NOW, Clock, make, revoked


class Counting(Gate):
    """A gate that counts how often it is asked."""

    asked = 0

    def recognise(
        self, path: str, metadata: Mapping[str, Sequence[str | bytes]], names: Collection[str]
    ) -> Admission:
        self.asked += 1
        return super().recognise(path, metadata, names)


def door(*keys: Key, clock: Clock | None = None) -> tuple[Counting, Entrance]:
    clock = clock or Clock()
    gate = Counting(NEEDS, Keys(keys), wall=clock, clock=clock)
    return gate, Entrance(gate, ())


def enter(entrance: Entrance, path: str, *carried: Header) -> str:
    return entrance.enter(path, carried, received(carried)).id


def key_header(text: str) -> Header:
    return b"X-Api-Key", text.encode()


def test_calls_that_are_alike_are_decided_once() -> None:
    """Those of several callers too, whom a proxy sends over one connection."""
    (one, one_text), (other, other_text) = make(), make()
    gate, entrance = door(one, other)
    for _ in range(3):
        assert enter(entrance, "/write", key_header(one_text)) == one.id
        assert enter(entrance, "/write", key_header(other_text)) == other.id
    assert gate.asked == 2


def test_what_differs_is_decided_by_itself() -> None:
    """By the path, by the key, and by its absence; whoever was let in before."""
    key, text = make("write")
    gate, entrance = door(key)
    assert enter(entrance, "/write", key_header(text)) == key.id
    for path, carried in {
        "/read": [key_header(text)],
        "/write": [],
        "/any": [key_header(text[:-1] + "~")],
    }.items():
        for _ in range(2):
            with pytest.raises(Forbidden if path == "/read" else Unauthenticated):
                enter(entrance, path, *carried)
    # Who is refused is not remembered.
    assert gate.asked == 7


def test_a_key_that_counts_no_more_lets_nobody_in() -> None:
    """Revoked or expired, between two calls of one connection."""
    clock = Clock()
    key, text = make(expires=NOW + timedelta(seconds=5))
    gate, entrance = door(key, clock=clock)
    enter(entrance, "/write", key_header(text))
    clock.s += 6
    with pytest.raises(Unauthenticated, match="expired"):
        enter(entrance, "/write", key_header(text))
    clock.s -= 6
    gate.use(Keys([revoked(key)]))
    with pytest.raises(Unauthenticated, match="revoked"):
        enter(entrance, "/write", key_header(text))


def test_each_call_counts_against_the_rate() -> None:
    """Also those of which nothing has to be decided."""
    key, text = make(requests_per_s=1)
    _, entrance = door(key)
    with pytest.raises(TooFast):
        for _ in range(100):
            enter(entrance, "/write", key_header(text))


def test_little_is_kept() -> None:
    """Of however many calls, and of none that carries much."""
    key, text = make()
    gate, entrance = door(key)
    much: list[Header] = [(b"Grpc-Metadata-Much", b"x" * 600), (b"Grpc-Metadata-" + b"Much" * 150, b"x")]
    for header in much * 2:
        enter(entrance, "/write", key_header(text), header)
    assert gate.asked == 4
    for number in range(1_000):
        enter(entrance, "/write", key_header(text), (b"Grpc-Metadata-Trace", str(number).encode()))
    assert len(entrance._admissions) <= 4
