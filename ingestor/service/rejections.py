"""Keeps what many rows of a request were rejected for until the answer is printed, which may be a commit away: as
objects 50,000 of them take 20 MB, and any number of requests may wait; packed, a hundredth.

It decides nothing, and unpacks a few at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import cast, overload

import orjson
from ingestor_api.analytics.v1 import RejectedMetric

from ingestor.service.slices import listed, portions

# What is packed of so many takes no millisecond to be unpacked, nor much room.
_FEW = 1_000


class Packed(Sequence[RejectedMetric]):
    """Each is made anew whenever it is looked at."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._ends: list[int] = []

    def add(self, rejected: Sequence[RejectedMetric]) -> None:
        """These come next."""
        pairs = [(each.index, each.reason) for each in rejected]
        self._pieces.append(zlib.compress(orjson.dumps(pairs), level=1))
        self._ends.append(len(self) + len(pairs))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[RejectedMetric]:
        for piece in self._pieces:
            yield from _unpacked(piece)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # as a list's

    @overload
    def __getitem__(self, index: int) -> RejectedMetric: ...
    @overload
    def __getitem__(self, index: slice) -> list[RejectedMetric]: ...
    def __getitem__(self, index: int | slice) -> RejectedMetric | list[RejectedMetric]:
        """Unpacks all of them for it: answers are gone through, and only tests look at one."""
        return list(self)[index]


def collected(rejected: Iterable[RejectedMetric], count: int) -> Sequence[RejectedMetric]:
    """All of these, of which there are so many, in one turn of the loop; so they are packed in larger pieces than
    `kept`'s."""
    rest = iter(rejected)
    if count <= _FEW:
        return list(rest)
    packed = Packed()
    while portion := list(islice(rest, _FEW)):
        packed.add(portion)
    return packed


async def kept(rejected: Iterator[RejectedMetric], count: int) -> Sequence[RejectedMetric]:
    """All of these, of which there are so many."""
    if count <= _FEW:
        return await listed(rejected)
    packed = Packed()
    async for portion in portions(rejected):
        packed.add(portion)
    return packed


def in_answer(rejected: Sequence[RejectedMetric]) -> list[RejectedMetric]:
    """As the field of an answer, which need not be the list that its type says: it is gone through, once."""
    return cast("list[RejectedMetric]", rejected)


def _unpacked(piece: bytes) -> Iterator[RejectedMetric]:
    return (
        RejectedMetric(index=index, reason=reason) for index, reason in orjson.loads(zlib.decompress(piece))
    )
