"""Joins small requests that came together into one entry: a row by itself takes ten times the bytes that it takes
among others.

It keeps their order, and never splits a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ingestor.journal.receipts import Offer
from ingestor.model import Entry, MetricBatch, Placed

_ROWS_MAX = 1_000
_BYTES_MAX = 256 * 1024


class Member(NamedTuple):
    """An offer whose rows are those from `first` on of an entry's."""

    first: int
    offer: Offer


class Joined(NamedTuple):
    """An entry, and whose rows it has."""

    entry: Entry
    members: Sequence[Member]


def join(offers: Sequence[Offer], position: int) -> list[Joined]:
    """These offers as entries, the first of them at `position`. Takes some 1 us a row: many
    are for a thread."""
    return [_joined(some, position + number) for number, some in enumerate(_small_together(offers))]


def _small_together(offers: Sequence[Offer]) -> Iterator[list[Offer]]:
    some: list[Offer] = []
    rows = size = 0
    for offer in offers:
        if some and (rows + offer.batch.rows > _ROWS_MAX or size + offer.size_bytes > _BYTES_MAX):
            yield some
            some, rows, size = [], 0, 0
        some.append(offer)
        rows += offer.batch.rows
        size += offer.size_bytes
    if some:
        yield some


def _joined(offers: list[Offer], position: int) -> Joined:
    members, placed = [], []
    first = 0
    for offer in offers:
        members.append(Member(first, offer))
        if offer.request is not None:
            placed.append(Placed(first, offer.batch.rows, offer.request))
        first += offer.batch.rows
    batch = MetricBatch.concat([offer.batch for offer in offers])
    return Joined(Entry(position, batch, offers[0].came_at_s, tuple(placed)), members)
