"""The memory journal keeps the contract, and its own invariants under random use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.errors import Overloaded, Unavailable
from ingestor.journal import MemoryJournal, QueueLimits, RequestIds
from ingestor.model import Ack, DeadRow, Entry, Outcome
from tests.journal.contract import MANY, JournalContract, batch, limits, settle_all, turns, values


class TestMemoryJournal(JournalContract):
    """The contract."""

    ack = Ack.QUEUED

    @asynccontextmanager
    async def open(
        self, path: Path, limits: QueueLimits, requests: RequestIds | None
    ) -> AsyncIterator[MemoryJournal]:
        yield MemoryJournal(limits, requests)


class TestBounds:
    """What waits and is in flight is bounded, and so are those who wait for room."""

    def make(self, limits: QueueLimits) -> MemoryJournal:
        return MemoryJournal(limits)

    async def test_room_is_freed_by_settling_and_not_by_reading(self) -> None:
        """The bound counts what waits and what is in flight."""
        journal = self.make(limits(rows=2))
        await journal.offer(batch(2), Ack.QUEUED)
        entries = await journal.read(MANY)
        assert (journal.waiting_rows, journal.held_rows) == (0, 2)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        await journal.settle(entries, Outcome())
        await journal.offer(batch(), Ack.QUEUED)
        assert journal.held_rows == 1

    async def test_a_refusal_took_nothing(self) -> None:
        """A batch for which there is no room whole is not taken in part."""
        journal = self.make(limits(rows=3))
        await journal.offer(batch(2), Ack.QUEUED)
        with pytest.raises(Overloaded, match="nothing was taken") as caught:
            await journal.offer(batch(2), Ack.QUEUED)
        assert caught.value.retry_after_s > 0
        assert (journal.waiting_rows, journal.held_rows) == (2, 2)

    async def test_bytes_are_bounded_too(self) -> None:
        """Few rows with much in them fill the queue as well."""
        size = batch().size_bytes
        journal = self.make(limits(size=2 * size))
        await journal.offer(batch(), Ack.QUEUED)
        await journal.offer(batch(), Ack.QUEUED)
        assert not journal.full
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        assert (journal.full, journal.held_bytes) == (True, 2 * size)

    async def test_a_read_that_finds_nothing_leaves_nothing_to_settle(self) -> None:
        """What is settled next is what was read next."""
        journal = self.make(limits())
        assert await journal.read(MANY) == []
        assert await journal.offer(batch(), Ack.QUEUED) == ()
        await journal.settle(await journal.read(MANY), Outcome())
        assert journal.held_rows == 0

    async def test_bytes_are_freed_by_settling(self) -> None:
        """As rows are: those of what was settled, and no others."""
        size = batch().size_bytes
        journal = self.make(limits(size=3 * size))
        for _ in range(3):
            await journal.offer(batch(), Ack.QUEUED)
        await journal.settle(await journal.read(2), Outcome())
        assert (journal.held_rows, journal.held_bytes, journal.held_entries) == (1, size, 1)
        for _ in range(2):
            await journal.offer(batch(), Ack.QUEUED)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        await settle_all(journal)
        assert (journal.held_rows, journal.held_bytes, journal.held_entries) == (0, 0, 0)

    async def test_room_is_freed_by_rewinding_over_what_is_stored(self) -> None:
        """Who waits for it comes in at once; what has to be read again keeps its room."""
        size = batch().size_bytes
        journal = self.make(limits(rows=4, wait_s=30))
        for value in (1.0, 2.0, 3.0, 4.0):
            await journal.offer(batch(1, value), Ack.QUEUED)
        waiting = asyncio.create_task(journal.offer(batch(2, 5.0), Ack.QUEUED))
        await turns()
        assert journal.waiting_offers == 1
        await journal.read(1)
        await journal.read(2)
        assert (journal.waiting_rows, journal.held_entries) == (1, 4)
        assert await journal.rewind(2) == -2
        await asyncio.wait_for(waiting, 5)
        assert (journal.waiting_rows, journal.held_rows, journal.held_entries) == (4, 4, 3)
        assert journal.held_bytes == 2 * size + batch(2).size_bytes
        entries = await journal.read(MANY)
        assert values(entries) == [3.0, 4.0, 5.0, 5.0]
        await journal.settle(entries, Outcome())
        assert (journal.held_rows, journal.held_bytes, journal.held_entries) == (0, 0, 0)

    async def test_an_offer_waits_for_room(self) -> None:
        """With an admission wait, room that comes in time is used, first come first served."""
        journal = self.make(limits(rows=2, wait_s=30))
        await journal.offer(batch(2), Ack.QUEUED)
        offers = [
            asyncio.create_task(journal.offer(batch(1, value), Ack.QUEUED)) for value in (1.0, 2.0, 3.0)
        ]
        await turns()
        assert journal.pressed
        await settle_all(journal)
        await asyncio.gather(*offers[:2])
        assert not offers[2].done()
        entries = await journal.read(MANY)
        assert [entry.batch.columns.column("value")[0].as_py() for entry in entries] == [1.0, 2.0]
        await journal.settle(entries, Outcome())
        await offers[2]

    async def test_who_waits_for_room_as_the_server_stops_is_refused(self) -> None:
        """Before the connections are closed; what is in is stored."""
        journal = self.make(limits(rows=2, wait_s=30))
        await journal.offer(batch(2), Ack.QUEUED)
        waiting = asyncio.create_task(journal.offer(batch(1), Ack.QUEUED))
        await turns()
        journal.give_up_commits()
        with pytest.raises(Unavailable, match="nothing was taken"):
            await asyncio.wait_for(waiting, 5)
        await settle_all(journal)
        assert journal.held_rows == 0

    async def test_waiting_for_room_ends(self) -> None:
        """Without room the wait ends in a refusal, and nothing was taken."""
        journal = self.make(limits(rows=1, wait_s=0.02))
        await journal.offer(batch(), Ack.QUEUED)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        assert journal.waiting_offers == 0
        assert journal.held_rows == 1

    async def test_a_refusal_presses_until_rows_are_settled(self) -> None:
        """Who was refused wants room no less than who waits for it: fuller batches are not worth waiting for."""
        journal = self.make(limits(rows=2))
        await journal.offer(batch(2), Ack.QUEUED)
        assert (journal.pressed, journal.full) == (False, True)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        assert (journal.pressed, journal.full) == (True, True)
        await asyncio.wait_for(journal.wait(MANY, None), 5)
        await settle_all(journal)
        assert (journal.pressed, journal.full) == (False, False)

    async def test_nobody_overtakes_who_waits(self) -> None:
        """A large request is not starved by small ones that would still fit."""
        journal = self.make(limits(rows=4, wait_s=30))
        await journal.offer(batch(3), Ack.QUEUED)
        large = asyncio.create_task(journal.offer(batch(2), Ack.QUEUED))
        await turns()
        small = asyncio.create_task(journal.offer(batch(1), Ack.QUEUED))
        await turns()
        assert not small.done()
        await settle_all(journal)
        await asyncio.gather(large, small)
        assert [entry.batch.rows for entry in await journal.read(MANY)] == [2, 1]

    async def test_who_leaves_the_line_lets_others_in(self) -> None:
        """A cancelled offer takes nothing and no longer blocks those behind it."""
        journal = self.make(limits(rows=4, wait_s=30))
        await journal.offer(batch(3), Ack.QUEUED)
        large = asyncio.create_task(journal.offer(batch(2), Ack.QUEUED))
        await turns()
        small = asyncio.create_task(journal.offer(batch(1), Ack.QUEUED))
        await turns()
        large.cancel()
        await small
        assert large.cancelled()
        assert journal.held_rows == 4

    async def test_those_who_wait_are_bounded_in_bytes(self) -> None:
        """A crowd that waits for room must not be what fills the memory."""
        journal = self.make(limits(rows=1, waiting=batch().size_bytes, wait_s=30))
        await journal.offer(batch(), Ack.QUEUED)
        waiting = asyncio.create_task(journal.offer(batch(), Ack.QUEUED))
        await turns()
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        await settle_all(journal)
        await waiting

    async def test_closing_refuses_offers_and_keeps_entries(self) -> None:
        """After close nothing comes in, not even who waits; what is in can still be read and settled."""
        journal = self.make(limits(rows=1, wait_s=30))
        await journal.offer(batch(), Ack.QUEUED)
        waiting = asyncio.create_task(journal.offer(batch(), Ack.QUEUED))
        await turns()
        journal.close()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await journal.offer(batch(), Ack.QUEUED)
        entries = await journal.read(MANY)
        assert len(entries) == 1
        await journal.settle(entries, Outcome())
        assert journal.held_rows == 0

    async def test_wait_returns_when_somebody_waits_for_room_and_when_closed(self) -> None:
        """Pressure and the end are reasons to look."""
        journal = self.make(limits(rows=1, wait_s=30))
        await journal.offer(batch(), Ack.QUEUED)
        reader = asyncio.create_task(journal.wait(5, None))
        await turns()
        offer = asyncio.create_task(journal.offer(batch(), Ack.QUEUED))
        await asyncio.wait_for(reader, 5)
        await settle_all(journal)
        await offer
        reader = asyncio.create_task(journal.wait(5, None))
        await turns()
        journal.close()
        await asyncio.wait_for(reader, 5)


async def test_the_age_is_that_of_the_oldest_unread_entry() -> None:
    """By the clock it was given; zero when nothing waits."""
    now = 100.0
    journal = MemoryJournal(limits(), clock=lambda: now)
    assert journal.age_s() == 0
    await journal.offer(batch(2), Ack.QUEUED)
    now = 103.0
    assert journal.age_s() == 3
    entries = await journal.read(1)
    assert journal.age_s() == 0
    assert journal.oldest_age_s() == 3
    await journal.settle(entries, Outcome())
    assert journal.oldest_age_s() == 0


async def test_one_read_takes_a_bounded_number_of_entries() -> None:
    """However few rows they have: the event loop would stand still for as long as they are moved."""
    journal = MemoryJournal(limits())
    one = batch()
    for _ in range(50_001):
        await journal.offer(one, Ack.QUEUED)
    assert len(await journal.read(MANY)) == 50_000
    assert journal.waiting_rows == 1
    assert [entry.position for entry in await journal.read(MANY)] == [50_001]


async def test_a_closed_queue_says_so_and_lets_nobody_sleep() -> None:
    """Not even who comes to wait once it is closed."""
    journal = MemoryJournal(limits())
    closed = [journal.closed]
    journal.close()
    closed.append(journal.closed)
    assert closed == [False, True]
    await asyncio.wait_for(journal.wait(1, None), 5)


async def test_it_promises_no_more_than_it_keeps() -> None:
    """Nothing of it outlives the process."""
    journal = MemoryJournal(limits())
    assert not journal.durable
    assert journal.levels == frozenset((Ack.QUEUED, Ack.COMMITTED))
    assert journal.default_level is Ack.QUEUED


async def test_a_server_that_stops_says_so_first() -> None:
    """The next one may have room for what would never fit here."""
    journal = MemoryJournal(limits(rows=1))
    journal.close()
    with pytest.raises(Unavailable):
        await journal.offer(batch(2), Ack.QUEUED)


async def test_a_queue_of_whole_metrics_is_full_to_the_last() -> None:
    """What it says of itself while there is room for one more, and when there is none."""
    journal = MemoryJournal(limits(rows=2))
    await journal.offer(batch(), Ack.QUEUED)
    assert (journal.full, journal.pressed) == (False, False)
    await journal.offer(batch(), Ack.QUEUED)
    assert (journal.full, journal.pressed) == (True, False)


async def test_what_is_taken_is_told() -> None:
    """Rows are counted in the moment in which they are taken, also those that waited for room."""
    taken: list[int] = []
    journal = MemoryJournal(limits(rows=3, wait_s=30), on_taken=taken.append)
    await journal.offer(batch(3), Ack.QUEUED)
    waiting = asyncio.create_task(journal.offer(batch(2), Ack.QUEUED))
    await turns()
    assert taken == [3]
    await settle_all(journal)
    await waiting
    assert taken == [3, 2]


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(1, 6)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 3)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(_steps)
def test_random_use_against_a_list(steps: list[tuple[str, int]]) -> None:
    """Any order of offers, reads, settlements and cancellations: within the bound, nothing lost, nothing twice,
    in order."""
    asyncio.run(_random_use(steps))


async def _random_use(steps: list[tuple[str, int]]) -> None:  # noqa: C901 - one branch a step
    journal = MemoryJournal(limits(rows=6, wait_s=1000))
    offers: dict[float, asyncio.Task[Sequence[DeadRow]]] = {}
    unsettled: list[list[Entry]] = []
    seen: list[float] = []

    async def read(rows: int) -> None:
        entries = await journal.read(rows)
        if entries:
            unsettled.append(entries)
        seen.extend(entry.batch.columns.column("value")[0].as_py() for entry in entries)

    async def settle() -> None:
        for entries in unsettled:
            await journal.settle(entries, Outcome())
        unsettled.clear()

    for number, (step, argument) in enumerate(steps):
        if step == "offer":
            offers[float(number)] = asyncio.create_task(
                journal.offer(batch(argument, float(number)), Ack.QUEUED)
            )
        elif step == "read":
            await read(argument)
        elif step == "settle":
            await settle()
        elif waiting := [task for task in offers.values() if not task.done()]:
            waiting[argument % len(waiting)].cancel()
        await turns()
        assert 0 <= journal.held_rows <= 6
    while journal.held_rows:
        await read(MANY)
        await settle()
        await turns()
    results = await asyncio.gather(*offers.values(), return_exceptions=True)
    taken = [value for value, result in zip(offers, results, strict=True) if result == ()]
    assert seen == taken
    assert not any(isinstance(result, Overloaded) for result in results)
