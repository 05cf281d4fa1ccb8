"""The memory journal keeps the contract, and its own invariants under random use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.errors import Overloaded
from ingestor.journal import MemoryJournal, QueueLimits, RequestIds
from ingestor.model import Ack, DeadRow, Entry, Outcome
from tests.journal.contract import MANY, JournalContract, batch, limits, settle_all, turns


class TestMemoryJournal(JournalContract):
    """The contract."""

    def make(self, limits: QueueLimits, requests: RequestIds | None = None) -> MemoryJournal:
        return MemoryJournal(limits, requests)


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


async def _random_use(steps: list[tuple[str, int]]) -> None:
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
