"""What every journal promises, as one suite that each implementation runs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from ingestor.errors import Invalid, TooLate
from ingestor.journal import DiskJournal, MemoryJournal, QueueLimits, RequestIds
from ingestor.model import Ack, DeadRow, Entry, MetricBatch, Outcome, Request, Row

MANY = 10**9
Journal: TypeAlias = MemoryJournal | DiskJournal


def batch(rows: int = 1, value: float = 0.0) -> MetricBatch:
    if rows == 1:
        return MetricBatch.of_row(Row(0, "s", "m", value), {})
    return MetricBatch.of_rows([Row(0, "s", "m", value)] * rows, {})


def limits(rows: int = MANY, size: int = MANY, waiting: int = MANY, wait_s: float = 0.0) -> QueueLimits:
    return QueueLimits(rows, size, waiting, wait_s)


async def settle_all(journal: Journal) -> None:
    """Reads what waits, and settles it."""
    entries = await journal.read(MANY)
    await journal.settle(entries, Outcome())


def values(entries: Sequence[Entry]) -> list[float]:
    """The values of all rows, in order."""
    return [value for entry in entries for value in entry.batch.columns.column("value").to_pylist()]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for it."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def turns(count: int = 5) -> None:
    """Lets other tasks run until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)


class JournalContract(ABC):
    """Subclasses say how a journal is opened, and the level at which a batch can be read once it is
    acknowledged."""

    ack: Ack

    @abstractmethod
    def open(
        self, path: Path, limits: QueueLimits, requests: RequestIds | None
    ) -> AbstractAsyncContextManager[Journal]:
        """An empty journal, which may use this directory."""

    @pytest.fixture(autouse=True)
    async def _journals(self, tmp_path: Path) -> AsyncIterator[None]:
        self._path = tmp_path
        async with AsyncExitStack() as self._stack:
            yield

    async def make(self, limits: QueueLimits, requests: RequestIds | None = None) -> Journal:
        """An open, empty journal."""
        return await self._stack.enter_async_context(self.open(self._path / "journal", limits, requests))

    async def test_entries_leave_whole_and_in_order(self) -> None:
        """First in, first out; a read ends with the entry that reaches the wanted number of rows."""
        journal = await self.make(limits())
        for rows in (2, 3, 4):
            await journal.offer(batch(rows), self.ack)
        assert [entry.batch.rows for entry in await journal.read(4)] == [2, 3]
        assert [entry.batch.rows for entry in await journal.read(4)] == [4]
        assert await journal.read(4) == []

    async def test_positions_increase_by_one(self) -> None:
        """Each entry's place in the order is one more than the last one's."""
        journal = await self.make(limits())
        for _ in range(3):
            await journal.offer(batch(), self.ack)
        assert [entry.position for entry in await journal.read(MANY)] == [1, 2, 3]

    async def test_what_could_never_fit_is_invalid(self) -> None:
        """Larger than the whole queue: waiting or trying again would not help."""
        with pytest.raises(Invalid, match="smaller batches"):
            await (await self.make(limits(rows=3))).offer(batch(4), self.ack)

    async def test_too_many_bytes_are_invalid_too(self) -> None:
        """Few rows with much in them."""
        journal = await self.make(limits(size=batch().size_bytes - 1))
        with pytest.raises(Invalid, match="smaller batches"):
            await journal.offer(batch(), self.ack)

    async def test_hurrying_presses_from_then_on(self) -> None:
        """The reader is woken, and is not kept spinning while there is nothing to read."""
        journal = await self.make(limits())
        await journal.offer(batch(), self.ack)
        reader = asyncio.create_task(journal.wait(5, None))
        await turns()
        journal.hurry()
        await asyncio.wait_for(reader, 5)
        await settle_all(journal)
        assert journal.pressed
        reader = asyncio.create_task(journal.wait(1, None))
        await turns()
        assert not reader.done()
        await journal.offer(batch(), self.ack)
        await asyncio.wait_for(reader, 5)

    async def test_wait_returns_when_enough_rows_wait(self) -> None:
        """The reader sleeps until the number of rows that it asked for, not for each that comes."""
        journal = await self.make(limits())
        reader = asyncio.create_task(journal.wait(3, None))
        for expected in (False, False, True):
            await turns()
            assert reader.done() is False
            await journal.offer(batch(), self.ack)
            await turns()
            assert reader.done() is expected

    async def test_wait_returns_at_once_when_enough_rows_wait_already(self) -> None:
        """Nobody may come any more to wake who waits. For more it waits; not when somebody wants the commit of
        what is here."""
        journal = await self.make(limits())
        await journal.offer(batch(3), self.ack)
        for rows in (2, 3):
            await asyncio.wait_for(journal.wait(rows, None), 5)
        reader = asyncio.create_task(journal.wait(MANY, None))
        await turns()
        assert not reader.done()
        waiting = asyncio.create_task(journal.offer(batch(), Ack.COMMITTED))
        await asyncio.wait_for(reader, 5)
        await asyncio.wait_for(journal.wait(MANY, None), 5)
        await settle_all(journal)
        await asyncio.wait_for(waiting, 5)

    async def test_wait_returns_when_the_journal_is_closed(self) -> None:
        """Nothing more will come."""
        journal = await self.make(limits())
        reader = asyncio.create_task(journal.wait(MANY, None))
        await turns()
        assert not reader.done()
        journal.close()
        await asyncio.wait_for(reader, 5)

    async def test_wait_returns_after_its_timeout(self) -> None:
        """Or when time is up, whatever waits."""
        journal = await self.make(limits())
        await asyncio.wait_for(journal.wait(1, 0.01), 5)

    async def test_a_commit_is_heard_of_when_it_happens(self) -> None:
        """Who waits for the commit presses, is told by settling, and of the rows of its own that were refused."""
        journal = await self.make(limits())
        await journal.offer(batch(2), self.ack)
        waiting = asyncio.create_task(journal.offer(batch(3), Ack.COMMITTED))
        await until(lambda: journal.waiting_rows == 5)
        pressed = [journal.pressed]
        entries = await journal.read(MANY)
        assert [*pressed, journal.pressed] == [True, False]
        assert not waiting.done()
        dead = [DeadRow(row, "23514", "bad") for row in (1, 3, 4)]
        await journal.settle(entries, Outcome(dead=dead))
        assert await waiting == (DeadRow(1, "23514", "bad"), DeadRow(2, "23514", "bad"))

    async def test_who_gives_up_waiting_for_a_commit_takes_nothing_back(self) -> None:
        """The rows are stored all the same."""
        journal = await self.make(limits())
        waiting = asyncio.create_task(journal.offer(batch(3), Ack.COMMITTED))
        await until(lambda: journal.waiting_rows == 3)
        waiting.cancel()
        await turns()
        assert journal.held_rows == 3
        await settle_all(journal)
        assert journal.held_rows == 0

    async def test_what_the_database_has_not_is_read_again(self) -> None:
        """Rewound to where the database stands, what was read and not settled comes again, in order."""
        journal = await self.make(limits())
        for value in (1.0, 2.0, 3.0):
            await journal.offer(batch(1, value), self.ack)
        first = await journal.read(1)
        await journal.settle(first, Outcome())
        await journal.read(1)
        assert await journal.rewind(first[-1].position) == 0
        assert journal.waiting_rows == journal.held_rows == 2
        assert values(await journal.read(MANY)) == [2.0, 3.0]

    async def test_what_is_to_be_read_again_wakes_who_waits_for_rows(self) -> None:
        """Nothing else may come for hours."""
        journal = await self.make(limits())
        await journal.offer(batch(), self.ack)
        await journal.read(MANY)
        waiting = asyncio.create_task(journal.wait(1, None))
        await turns()
        assert not waiting.done()
        await journal.rewind(0)
        await asyncio.wait_for(waiting, 5)

    async def test_who_waits_for_the_commit_of_what_is_to_be_read_again_waits_for_no_fuller_batch(
        self,
    ) -> None:
        """The one who stores looks at once, although more rows than wait were asked for."""
        journal = await self.make(limits())
        committing = asyncio.create_task(journal.offer(batch(), Ack.COMMITTED))
        await until(lambda: journal.waiting_rows == 1)
        await journal.read(MANY)
        await journal.offer(batch(), self.ack)
        waiting = asyncio.create_task(journal.wait(MANY, None))
        await turns()
        assert not waiting.done()
        await journal.rewind(0)
        await asyncio.wait_for(waiting, 5)
        assert journal.pressed
        await settle_all(journal)
        await asyncio.wait_for(committing, 5)

    async def test_who_waits_for_a_commit_as_the_server_stops_is_told(self) -> None:
        """And who comes to wait for one later, with a request of its own or one that is known; whose level is
        reached hears nothing of it. All of it can be stored."""
        requests = RequestIds()
        journal = await self.make(limits(), requests)
        known = Request("", "r", b"f", 1)
        early = asyncio.create_task(journal.offer(batch(1, 1.0), Ack.COMMITTED))
        assert not await journal.offer(batch(1, 2.0), self.ack, known)
        await until(lambda: journal.waiting_rows == 2)
        journal.give_up_commits()
        for asking in (early, journal.offer(batch(1, 3.0), Ack.COMMITTED)):
            with pytest.raises(TooLate, match="the commit was seen"):
                await asyncio.wait_for(asking, 5)
        assert not await journal.offer(batch(1, 4.0), self.ack)
        again = await requests.find(known)
        assert again is not None
        assert not await asyncio.wait_for(again.reached(self.ack), 5)
        with pytest.raises(TooLate, match="the commit was seen"):
            await asyncio.wait_for(again.reached(Ack.COMMITTED), 5)
        await until(lambda: journal.waiting_rows == 4)
        entries = await journal.read(MANY)
        assert sorted(values(entries)) == [1.0, 2.0, 3.0, 4.0]
        await journal.settle(entries, Outcome())
        assert journal.held_rows == 0

    async def test_what_the_database_has_already_is_let_go_of(self) -> None:
        """Rewound to a place further on, what lies before it is settled, and those who wait are told."""
        journal = await self.make(limits())
        waiting = asyncio.create_task(journal.offer(batch(2, 1.0), Ack.COMMITTED))
        await until(lambda: journal.waiting_rows == 2)
        entries = await journal.read(MANY)
        await journal.offer(batch(1, 2.0), self.ack)
        assert await journal.rewind(entries[-1].position) == -2
        assert await waiting == ()
        assert values(await journal.read(MANY)) == [2.0]

    async def test_a_request_is_known_until_and_after_it_is_committed(self) -> None:
        """By its name: while it waits with the fate that it will have, then with the one that it had."""
        requests = RequestIds()
        journal = await self.make(limits(), requests)
        request = Request("", "r", b"f", 2)
        await journal.offer(batch(2), self.ack, request)
        again = await requests.find(request)
        assert again is not None
        reader = asyncio.create_task(journal.wait(MANY, None))
        await turns()
        assert not reader.done()
        waiting = asyncio.create_task(again.reached(Ack.COMMITTED))
        await asyncio.wait_for(reader, 5)
        assert not waiting.done()
        assert journal.pressed  # nobody who waits for a commit waits for the ticker
        await journal.settle(await journal.read(MANY), Outcome(dead=[DeadRow(1, "22000", "bad")]))
        assert await waiting == (DeadRow(1, "22000", "bad"),)
        later = await requests.find(request)
        assert later is not None
        assert await later.reached(Ack.COMMITTED) == (DeadRow(1, "22000", "bad"),)

    async def test_an_entry_says_where_the_rows_of_its_requests_are(self) -> None:
        """So that they can be left out when another gateway has stored them."""
        journal = await self.make(limits())
        requests = [Request("", name, b"f", rows) for name, rows in (("a", 2), ("b", 3))]
        for request in requests:
            await journal.offer(batch(request.accepted), self.ack, request)
        entries = await journal.read(MANY)
        before = 0
        found = []
        for entry in entries:
            found += [(before + each.first, each.rows, each.request) for each in entry.requests]
            before += entry.batch.rows
        assert found == [(0, 2, requests[0]), (2, 3, requests[1])]

    async def test_an_entry_of_nameless_requests_names_none(self) -> None:
        """There is nothing to look up for them."""
        journal = await self.make(limits())
        await journal.offer(batch(2), self.ack)
        assert [tuple(entry.requests) for entry in await journal.read(MANY)] == [()]
