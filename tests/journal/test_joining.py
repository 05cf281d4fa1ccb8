"""Small requests share an entry, in order and whole; a large one has its own."""

from __future__ import annotations

import pytest

from ingestor.journal import joining
from ingestor.journal.joining import join
from ingestor.journal.receipts import Offer
from ingestor.model import Ack, Request
from tests.journal.contract import batch, values

SIZE = batch().size_bytes


def offer(rows: int, value: float = 0.0, name: str = "", came_at_s: float = 0.0) -> Offer:
    request = Request("", name, b"f", rows) if name else None
    return Offer(batch(rows, value), Ack.JOURNALED, request, None, came_at_s)


def shares(offers: list[Offer]) -> list[list[int]]:
    """How many rows of which offers are in each entry."""
    return [[member.offer.batch.rows for member in each.members] for each in join(offers, 1)]


def test_the_rows_of_each_are_found_in_what_they_share() -> None:
    """The entry is as old as its oldest, and says where the rows of named requests are."""
    offers = [offer(2, 1.0, came_at_s=5.0), offer(3, 2.0, "a", 6.0), offer(1, 3.0, "b", 7.0)]
    [joined] = join(offers, 7)
    entry = joined.entry
    assert (entry.position, entry.taken_at_s, values([entry])) == (7, 5.0, [1.0, 1.0, 2.0, 2.0, 2.0, 3.0])
    assert [(member.first, member.offer) for member in joined.members] == list(
        zip((0, 2, 5), offers, strict=True)
    )
    placed = [(each.first, each.rows, each.request.id) for each in entry.requests]
    assert placed == [(2, 3, "a"), (5, 1, "b")]


def test_entries_have_positions_one_after_the_other() -> None:
    """In the order in which the requests came."""
    entries = [each.entry for each in join([offer(900, float(number)) for number in range(3)], 7)]
    assert [(entry.position, values([entry])[0]) for entry in entries] == [(7, 0.0), (8, 1.0), (9, 2.0)]
    assert join([], 7) == []


def test_no_more_rows_share_an_entry_than_the_bound() -> None:
    """A request that is larger is an entry by itself: none is split."""
    assert shares([offer(400), offer(600), offer(1)]) == [[400, 600], [1]]
    assert shares([offer(400), offer(601), offer(399)]) == [[400], [601, 399]]
    assert shares([offer(5_000), offer(1), offer(2)]) == [[5_000], [1, 2]]


def test_no_more_bytes_share_an_entry_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows with much in them."""
    monkeypatch.setattr(joining, "_BYTES_MAX", 3 * SIZE)
    assert shares([offer(1)] * 7) == [[1, 1, 1], [1, 1, 1], [1]]
