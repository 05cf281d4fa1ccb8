"""What every journal promises, as one suite that each implementation runs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

import pytest

from ingestor.errors import Invalid, Overloaded, Unavailable
from ingestor.journal import MemoryJournal, QueueLimits, RequestIds
from ingestor.model import Ack, DeadRow, Entry, MetricBatch, Outcome, Request, Row

MANY = 10**9


def batch(rows: int = 1, value: float = 0.0) -> MetricBatch:
    if rows == 1:
        return MetricBatch.of_row(Row(0, "s", "m", value), {})
    return MetricBatch.of_rows([Row(0, "s", "m", value)] * rows, {})


def limits(rows: int = MANY, size: int = MANY, waiting: int = MANY, wait_s: float = 0.0) -> QueueLimits:
    return QueueLimits(rows, size, waiting, wait_s)


async def settle_all(journal: MemoryJournal) -> None:
    """Reads what waits, and settles it."""
    entries = await journal.read(MANY)
    await journal.settle(entries, Outcome())


def values(entries: Sequence[Entry]) -> list[float]:
    """The values of all rows, in order."""
    return [value for entry in entries for value in entry.batch.columns.column("value").to_pylist()]


async def turns(count: int = 5) -> None:
    """Lets other tasks run until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)


class JournalContract(ABC):
    """Subclasses say how a journal is made."""

    @abstractmethod
    def make(self, limits: QueueLimits, requests: RequestIds | None = None) -> MemoryJournal:
        """An open, empty journal."""

    async def test_entries_leave_whole_and_in_order(self) -> None:
        """First in, first out; a read ends with the entry that reaches the wanted number of rows."""
        journal = self.make(limits())
        for rows in (2, 3, 4):
            await journal.offer(batch(rows), Ack.QUEUED)
        assert [entry.batch.rows for entry in await journal.read(4)] == [2, 3]
        assert [entry.batch.rows for entry in await journal.read(4)] == [4]
        assert await journal.read(4) == []

    async def test_positions_increase_by_one(self) -> None:
        """Each entry's place in the order is one more than the last one's."""
        journal = self.make(limits())
        for _ in range(3):
            await journal.offer(batch(), Ack.QUEUED)
        assert [entry.position for entry in await journal.read(MANY)] == [1, 2, 3]

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
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        assert journal.held_bytes == 2 * size

    async def test_what_could_never_fit_is_invalid(self) -> None:
        """Larger than the whole queue: waiting or trying again would not help."""
        with pytest.raises(Invalid, match="smaller batches"):
            await self.make(limits(rows=3)).offer(batch(4), Ack.QUEUED)
        with pytest.raises(Invalid, match="smaller batches"):
            await self.make(limits(size=batch().size_bytes - 1)).offer(batch(), Ack.QUEUED)

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

    async def test_hurrying_presses_from_then_on(self) -> None:
        """The reader is woken, and is not kept spinning while there is nothing to read."""
        journal = self.make(limits())
        await journal.offer(batch(), Ack.QUEUED)
        reader = asyncio.create_task(journal.wait(5, None))
        await turns()
        journal.hurry()
        await asyncio.wait_for(reader, 5)
        await settle_all(journal)
        assert journal.pressed
        reader = asyncio.create_task(journal.wait(1, None))
        await turns()
        assert not reader.done()
        await journal.offer(batch(), Ack.QUEUED)
        await asyncio.wait_for(reader, 5)

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

    async def test_wait_returns_when_enough_rows_wait(self) -> None:
        """The reader sleeps until the number of rows that it asked for, not for each that comes."""
        journal = self.make(limits())
        reader = asyncio.create_task(journal.wait(3, None))
        for expected in (False, False, True):
            await turns()
            assert reader.done() is False
            await journal.offer(batch(), Ack.QUEUED)
            await turns()
            assert reader.done() is expected

    async def test_wait_returns_after_its_timeout(self) -> None:
        """Or when time is up, whatever waits."""
        journal = self.make(limits())
        await asyncio.wait_for(journal.wait(1, 0.01), 5)

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

    async def test_a_commit_is_heard_of_when_it_happens(self) -> None:
        """Who waits for the commit presses, is told by settling, and of the rows of its own that were refused."""
        journal = self.make(limits())
        await journal.offer(batch(2), Ack.QUEUED)
        waiting = asyncio.create_task(journal.offer(batch(3), Ack.COMMITTED))
        await turns()
        pressed = [journal.pressed]
        entries = await journal.read(MANY)
        assert [*pressed, journal.pressed] == [True, False]
        assert not waiting.done()
        dead = [DeadRow(row, "23514", "bad") for row in (1, 3, 4)]
        await journal.settle(entries, Outcome(dead=dead))
        assert await waiting == (DeadRow(1, "23514", "bad"), DeadRow(2, "23514", "bad"))

    async def test_who_gives_up_waiting_for_a_commit_takes_nothing_back(self) -> None:
        """The rows are stored all the same."""
        journal = self.make(limits())
        waiting = asyncio.create_task(journal.offer(batch(3), Ack.COMMITTED))
        await turns()
        waiting.cancel()
        await turns()
        assert journal.held_rows == 3
        await settle_all(journal)
        assert journal.held_rows == 0

    async def test_what_the_database_has_not_is_read_again(self) -> None:
        """Rewound to where the database stands, what was read and not settled comes again, in order."""
        journal = self.make(limits())
        for value in (1.0, 2.0, 3.0):
            await journal.offer(batch(1, value), Ack.QUEUED)
        first = await journal.read(1)
        await journal.settle(first, Outcome())
        await journal.read(1)
        assert await journal.rewind(first[-1].position) == 0
        assert journal.waiting_rows == journal.held_rows == 2
        assert values(await journal.read(MANY)) == [2.0, 3.0]

    async def test_what_the_database_has_already_is_let_go_of(self) -> None:
        """Rewound to a place further on, what lies before it is settled, and those who wait are told."""
        journal = self.make(limits())
        waiting = asyncio.create_task(journal.offer(batch(2, 1.0), Ack.COMMITTED))
        await turns()
        entries = await journal.read(MANY)
        await journal.offer(batch(1, 2.0), Ack.QUEUED)
        assert await journal.rewind(entries[-1].position) == -2
        assert await waiting == ()
        assert values(await journal.read(MANY)) == [2.0]

    async def test_a_request_is_known_until_and_after_it_is_committed(self) -> None:
        """By its name: while it waits with the fate that it will have, then with the one that it had."""
        requests = RequestIds()
        journal = self.make(limits(), requests)
        request = Request("", "r", b"f", 2)
        await journal.offer(batch(2), Ack.QUEUED, request)
        again = await requests.find(request)
        assert again is not None
        waiting = asyncio.create_task(again.reached(Ack.COMMITTED))
        await turns()
        assert not waiting.done()
        await journal.settle(await journal.read(MANY), Outcome(dead=[DeadRow(1, "22000", "bad")]))
        assert await waiting == (DeadRow(1, "22000", "bad"),)
        later = await requests.find(request)
        assert later is not None
        assert await later.reached(Ack.COMMITTED) == (DeadRow(1, "22000", "bad"),)

    async def test_an_entry_says_where_the_rows_of_its_requests_are(self) -> None:
        """So that they can be left out when another gateway has stored them."""
        journal = self.make(limits())
        requests = [Request("", name, b"f", rows) for name, rows in (("a", 2), ("b", 3))]
        for request in requests:
            await journal.offer(batch(request.accepted), Ack.QUEUED, request)
        entries = await journal.read(MANY)
        before = 0
        found = []
        for entry in entries:
            found += [(before + each.first, each.rows, each.request) for each in entry.requests]
            before += entry.batch.rows
        assert found == [(0, 2, requests[0]), (2, 3, requests[1])]
