"""Who is told what, and for how long anybody is remembered."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.errors import Conflict, TooLate, Unavailable
from ingestor.journal import RequestIds, commits, request_ids
from ingestor.journal.commits import Commits
from ingestor.journal.receipts import Offer, Receipt
from ingestor.model import Ack, DeadRow, Entry, Outcome, Placed, Request, StoredRequest
from tests.journal.contract import batch, turns


def request(name: object) -> Request:
    return Request("", str(name), b"f", 1)


def offer(ack: Ack, named: Request | None = None) -> Offer:
    return Offer(batch(), ack, named, Receipt(awaited=ack is Ack.COMMITTED), 0.0)


def receipt_of(made: Offer) -> Receipt:
    assert made.receipt is not None
    return made.receipt


async def test_who_gave_up_waiting_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away for hours must not cost memory for each caller who waited a while."""
    monkeypatch.setattr(commits, "_SWEPT_AT", 10)
    kept = Commits(RequestIds(), lambda: None)
    for position in range(1, 1_000):
        waiting = offer(Ack.COMMITTED)
        kept.add(position, 0, waiting)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await receipt_of(waiting).reached(Ack.COMMITTED)
        assert len(kept) <= 10
    last = offer(Ack.COMMITTED)
    kept.add(1_000, 0, last)
    telling = asyncio.create_task(receipt_of(last).reached(Ack.COMMITTED))
    await turns()
    kept.settled([Entry(1_000, batch(), 0.0)], Outcome())
    await asyncio.wait_for(telling, 5)


async def test_looking_for_those_who_gave_up_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many still wait: each is looked at a few times, not whenever another one comes."""
    monkeypatch.setattr(commits, "_SWEPT_AT", 10)
    looks = 0

    class Counting(RequestIds):
        def holds(self, request: Request, receipt: Receipt) -> bool:
            nonlocal looks
            looks += 1
            return True

    kept = Commits(Counting(), lambda: None)
    for position in range(1, 1_001):
        kept.add(position, 0, offer(Ack.COMMITTED, request(position)))
    assert len(kept) == 1_000
    assert looks < 4_000


async def test_names_are_kept_no_longer_than_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what is remembered of requests, nothing is kept of them here either."""
    monkeypatch.setattr(request_ids, "HELD_MAX", 5)
    ids = RequestIds()
    kept = Commits(ids, lambda: None)
    for position in range(1, 100):
        made = offer(Ack.JOURNALED, request(position))
        ids.hold(request(position), receipt_of(made), lambda: None, Ack.JOURNALED)
        kept.add(position, 0, made)
    assert len(kept) == 5
    kept.restart(0, [(number, Placed(0, 1, request(number))) for number in range(1, 100)])
    assert len(kept) == 5


async def test_who_came_second_hears_of_the_first() -> None:
    """Another gateway was faster: with the same rows, then what became of those counts; or with others."""
    dead = (DeadRow(0, "23514", "no"),)
    same, other, own = (request(name) for name in ("same", "other", "own"))

    async def lookup(keys: object) -> dict[tuple[str, str], StoredRequest]:
        return {same.key: StoredRequest(same, dead)}

    ids = RequestIds(lookup)
    kept = Commits(ids, lambda: None)
    offers = [offer(Ack.COMMITTED, each) for each in (same, other, own)]
    for number, (made, named) in enumerate(zip(offers, (same, other, own), strict=True)):
        ids.hold(named, receipt_of(made), lambda: None, Ack.QUEUED)
        kept.add(1, number, made)
    placed = tuple(Placed(number, 1, named) for number, named in enumerate((same, other, own)))
    refused = [DeadRow(1, None, "used before"), DeadRow(2, "23514", "bad")]
    outcome = Outcome(refused, duplicates=[0], conflicts=[1])
    kept.settled([Entry(1, batch(3), 0.0, placed)], outcome)
    first, second, third = (receipt_of(made) for made in offers)
    assert await asyncio.wait_for(first.reached(Ack.COMMITTED), 5) == dead
    with pytest.raises(Conflict):
        await asyncio.wait_for(second.reached(Ack.COMMITTED), 5)
    assert await asyncio.wait_for(third.reached(Ack.COMMITTED), 5) == (DeadRow(0, "23514", "bad"),)
    assert await ids.find(other) is None, "the loser's is not what its name stands for"


async def test_each_hears_of_its_own_rows() -> None:
    """What the database refused of a neighbour's is not its."""
    kept = Commits(RequestIds(), lambda: None)
    offers = [offer(Ack.COMMITTED) for _ in range(3)]
    for number, made in enumerate(offers):
        kept.add(1, number, made)
    kept.settled([Entry(1, batch(3), 0.0)], Outcome([DeadRow(1, "23514", "bad")]))
    told = [await receipt_of(made).reached(Ack.COMMITTED) for made in offers]
    assert told == [(), (DeadRow(0, "23514", "bad"),), ()]


async def test_a_database_that_is_ahead_has_what_lies_behind_its_cursor_and_no_more() -> None:
    """Who waits for what comes later goes on waiting."""
    kept = Commits(RequestIds(), lambda: None)
    offers = {position: offer(Ack.COMMITTED) for position in (1, 2, 3)}
    for position, made in offers.items():
        kept.add(position, 0, made)
    kept.restart(2, ())
    for position in (1, 2):
        assert await asyncio.wait_for(receipt_of(offers[position]).reached(Ack.COMMITTED), 5) == ()
    assert len(kept) == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await receipt_of(offers[3]).reached(Ack.COMMITTED)


async def test_what_a_file_has_is_journaled() -> None:
    """A repetition after a restart need not wait for the database, unless it asks for that."""
    ids = RequestIds()
    kept = Commits(ids, lambda: None)
    kept.restart(0, [(1, Placed(0, 1, request("r")))])
    found = await ids.find(request("r"))
    assert found is not None
    assert await asyncio.wait_for(found.reached(Ack.JOURNALED), 5) == ()


async def test_what_is_lost_is_told_to_those_whom_it_is_about() -> None:
    """And to nobody else: what was read before is still on its way, and what comes later is good."""
    kept = Commits(RequestIds(), lambda: None)
    offers = {position: offer(Ack.COMMITTED) for position in (1, 2, 3, 4)}
    for position, made in offers.items():
        kept.add(position, 0, made)
    kept.lost(1, 3)
    assert len(kept) == 2
    for position in (2, 3):
        with pytest.raises(Unavailable, match="lost"):
            await receipt_of(offers[position]).reached(Ack.COMMITTED)
    kept.settled([Entry(1, batch(), 0.0), Entry(4, batch(), 0.0)], Outcome())
    for position in (1, 4):
        assert await receipt_of(offers[position]).reached(Ack.COMMITTED) == ()


@pytest.mark.parametrize("how", ["comes in", "is read again"])
async def test_who_asks_for_a_commit_after_it_was_given_up_is_told(how: str) -> None:
    """Also when the first did not ask for it, and whatever has been known of the request since."""
    ids = RequestIds()
    kept = Commits(ids, lambda: None)
    kept.abandon(TooLate("the server stopped"))
    if how == "comes in":
        made = offer(Ack.JOURNALED, request("r"))
        ids.hold(request("r"), receipt_of(made), lambda: None, Ack.JOURNALED)
        receipt_of(made).advance(Ack.JOURNALED)
        kept.add(1, 0, made)
    else:
        kept.restart(0, [(1, Placed(0, 1, request("r")))])
    found = await ids.find(request("r"))
    assert found is not None
    assert await asyncio.wait_for(found.reached(Ack.JOURNALED), 5) == ()
    with pytest.raises(TooLate):
        await asyncio.wait_for(found.reached(Ack.COMMITTED), 5)


async def test_who_waits_for_what_another_gateway_stored_is_told_as_the_server_stops() -> None:
    """The database is asked, and does not answer in time."""
    asked = asyncio.Event()

    async def lookup(keys: object) -> dict[tuple[str, str], StoredRequest]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    ids = RequestIds(lookup)
    kept = Commits(ids, lambda: None)
    made = offer(Ack.COMMITTED, request("r"))
    ids.hold(request("r"), receipt_of(made), lambda: None, Ack.QUEUED)
    kept.add(1, 0, made)
    kept.settled([Entry(1, batch(), 0.0, (Placed(0, 1, request("r")),))], Outcome(duplicates=[0]))
    waiting = asyncio.create_task(receipt_of(made).reached(Ack.COMMITTED))
    await asyncio.wait_for(asked.wait(), 5)
    kept.abandon(TooLate("the commit was not seen"))
    with pytest.raises(TooLate, match="it is stored, but the server stopped"):
        await asyncio.wait_for(asyncio.shield(waiting), 1)
