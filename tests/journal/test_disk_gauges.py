"""What the disk journal says of itself: to metrics, to readiness, and to the one who decides when to flush."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ingestor.errors import Overloaded, Unavailable
from ingestor.journal import DiskJournal
from ingestor.journal import backlog as backlog_module
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.model import Ack, Outcome
from tests.journal.contract import MANY, batch, limits, settle_all, turns, until
from tests.journal.disk_kit import MIB, opened, written

SIZE = batch().size_bytes


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def test_what_lies_in_memory_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not written, what is not read, and what is not settled; of what is on disk alone, nothing."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 2 * SIZE)
    async with opened(tmp_path) as (journal, log):
        assert (journal.held_entries, journal.held_bytes) == (0, 0)
        for _ in range(2):
            await journal.offer(batch(), Ack.JOURNALED)
        entries = await journal.read(1)
        await journal.offer(batch(), Ack.JOURNALED)
        assert (journal.held_entries, journal.held_bytes) == (3, 2 * SIZE)
        await journal.offer(batch(), Ack.JOURNALED)
        assert (journal.held_entries, journal.held_bytes) == (3, 2 * SIZE)
        log.go.clear()
        await journal.offer(batch(), Ack.QUEUED)
        await turns()
        await until(lambda: log.appends == 5)
        await journal.offer(batch(), Ack.QUEUED)
        assert (journal.held_entries, journal.held_bytes) == (4, 4 * SIZE)
        assert (journal.held_rows, journal.waiting_rows, journal.unwritten_rows) == (6, 3, 2)
        await journal.settle(entries, Outcome())
        assert (journal.held_entries, journal.held_rows) == (3, 5)


async def test_who_waits_for_room_presses(tmp_path: Path) -> None:
    """And the next one would have to wait as well."""
    async with opened(tmp_path, limits(rows=2, wait_s=30)) as (journal, log):
        log.go.clear()
        await journal.offer(batch(2), Ack.QUEUED)
        assert (journal.waiting_offers, journal.pressed, journal.full) == (0, False, False)
        waiting = asyncio.create_task(journal.offer(batch(), Ack.QUEUED))
        await turns()
        assert (journal.waiting_offers, journal.pressed, journal.full) == (1, True, True)
        log.go.set()
        await asyncio.wait_for(waiting, 5)
        assert (journal.waiting_offers, journal.pressed, journal.full) == (0, False, False)


async def test_bytes_before_the_disk_are_bounded(tmp_path: Path) -> None:
    """As rows are; what is written makes room."""
    async with opened(tmp_path, limits(size=2 * SIZE)) as (journal, log):
        log.go.clear()
        for _ in range(2):
            await journal.offer(batch(), Ack.QUEUED)
        with pytest.raises(Overloaded, match="is full"):
            await journal.offer(batch(), Ack.QUEUED)
        log.go.set()
        await written(journal)
        for _ in range(2):
            await journal.offer(batch(), Ack.QUEUED)
        await written(journal)
        assert journal.held_rows == 4


async def test_the_disks_room_is_told_and_kept(tmp_path: Path) -> None:
    """Nobody is let in beyond it: rows count with what a record takes beside them."""
    async with opened(tmp_path) as (journal, log):
        log.room = SIZE + 1_024
        await journal.offer(batch(), Ack.JOURNALED)
        assert journal.room_bytes == SIZE + 1_024
        log.go.clear()
        await journal.offer(batch(), Ack.QUEUED)
        assert not journal.full
        with pytest.raises(Overloaded, match=r"the journal is full \(\d+ bytes; 2 metrics wait"):
            await journal.offer(batch(), Ack.QUEUED)
        assert journal.size_bytes == log.size_bytes
        log.room = 1
        log.go.set()
        await written(journal)
        assert (journal.room_bytes, journal.full) == (1, False)
        log.room = 0
        await settle_all(journal)
        await until(lambda: journal.full)
        assert journal.room_bytes == 0


async def test_a_full_queue_before_the_disk_is_told_from_a_full_disk(tmp_path: Path) -> None:
    """An operator raises the one or the other."""
    async with opened(tmp_path, limits(rows=2)) as (journal, log):
        log.go.clear()
        await journal.offer(batch(2), Ack.QUEUED)
        with pytest.raises(Overloaded, match=r"the queue before the journal is full \(2 metrics\)"):
            await journal.offer(batch(), Ack.QUEUED)


async def test_it_is_closed_when_all_is_written(tmp_path: Path) -> None:
    """Until then there will be more to read; a reader that sleeps is told."""
    async with opened(tmp_path) as (journal, log):
        log.go.clear()
        await journal.offer(batch(2), Ack.QUEUED)
        await until(lambda: log.appends == 1)
        told = [journal.closed]
        journal.close()
        told.append(journal.closed)
        reader = asyncio.create_task(journal.wait(MANY, None))
        await turns()
        assert not reader.done()
        log.go.set()
        await asyncio.wait_for(reader, 5)
        assert [*told, journal.closed] == [False, False, True]
        await asyncio.wait_for(journal.wait(MANY, None), 5)


async def test_the_oldest_is_as_old_as_it_is(tmp_path: Path) -> None:
    """From the moment that it came until it is settled, whoever has read how much of the rest."""
    clock = Clock()
    async with opened(tmp_path, clock=clock) as (journal, _):
        assert (journal.age_s(), journal.oldest_age_s()) == (0.0, 0.0)
        for _ in range(4):
            await journal.offer(batch(), Ack.JOURNALED)
            clock.now_s += 1
        assert (journal.age_s(), journal.oldest_age_s()) == (4.0, 4.0)
        first = await journal.read(2)
        assert (journal.age_s(), journal.oldest_age_s()) == (2.0, 4.0)
        second = await journal.read(1)
        assert (journal.age_s(), journal.oldest_age_s()) == (1.0, 4.0)
        await journal.settle(first, Outcome())
        assert (journal.age_s(), journal.oldest_age_s()) == (1.0, 2.0)
        await journal.settle(second, Outcome())
        assert (journal.age_s(), journal.oldest_age_s()) == (1.0, 1.0)
        await settle_all(journal)
        assert (journal.age_s(), journal.oldest_age_s()) == (0.0, 0.0)


async def test_who_is_acknowledged_before_the_disk_has_it_grows_old_too(tmp_path: Path) -> None:
    """Who still waits for the disk does not: nobody was promised anything."""
    clock = Clock()
    async with opened(tmp_path, clock=clock) as (journal, log):
        log.go.clear()
        first = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        second = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await turns()
        clock.now_s += 1
        assert journal.oldest_age_s() == 0.0
        log.go.set()
        await asyncio.gather(first, second)
        await settle_all(journal)
        log.go.clear()
        await journal.offer(batch(), Ack.QUEUED)
        await until(lambda: log.appends == 3)
        for _ in range(2):
            await journal.offer(batch(), Ack.QUEUED)
            clock.now_s += 5
        assert (journal.age_s(), journal.oldest_age_s()) == (0.0, 10.0)


async def test_what_is_older_than_what_is_acknowledged_unwritten_counts(tmp_path: Path) -> None:
    """It waits to be read, or to be settled."""
    clock = Clock()
    async with opened(tmp_path, clock=clock) as (journal, log):
        await journal.offer(batch(), Ack.JOURNALED)
        clock.now_s += 5
        log.go.clear()
        await journal.offer(batch(), Ack.QUEUED)
        await until(lambda: log.appends == 2)
        await journal.offer(batch(), Ack.QUEUED)
        assert (journal.age_s(), journal.oldest_age_s()) == (5.0, 5.0)
        await journal.read(1)
        assert (journal.age_s(), journal.oldest_age_s()) == (0.0, 5.0)


async def test_a_refusal_presses_until_rows_are_settled(tmp_path: Path) -> None:
    """Then there may be room again: the next one tries."""
    async with opened(tmp_path) as (journal, log):
        log.room = 0
        await journal.offer(batch(), Ack.JOURNALED)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.JOURNALED)
        told = [journal.pressed]
        await settle_all(journal)
        assert [*told, journal.pressed] == [True, False]


async def test_each_write_says_how_long_it_took(tmp_path: Path) -> None:
    """However many share it."""
    took_s: list[float] = []
    async with opened(tmp_path, on_synced=took_s.append) as (journal, _):
        await asyncio.gather(*(journal.offer(batch(), Ack.JOURNALED) for _ in range(5)))
        assert len(took_s) == 1
        await journal.offer(batch(), Ack.JOURNALED)
        assert len(took_s) == 2
        assert all(0 < each < 60 for each in took_s)


async def test_an_end_is_one(tmp_path: Path) -> None:
    """What was lost is told again, offers are refused, and a start says what is pending."""
    async with opened(tmp_path) as (journal, log):
        await journal.offer(batch(2), Ack.JOURNALED)
        log.go.clear()
        await journal.offer(batch(3), Ack.QUEUED)
        await until(lambda: log.appends == 2)
        await journal.offer(batch(4), Ack.QUEUED)
        ending = asyncio.create_task(journal.end(0))
        await turns(20)
        log.go.set()
        assert await asyncio.wait_for(ending, 5) == 4
        assert await journal.end(5) == 4
        with pytest.raises(Unavailable, match="stopping"):
            await journal.offer(batch(), Ack.QUEUED)
    again = DiskJournal(SegmentLog.open(DiskDirectory.open(tmp_path), LogLimits(MIB)), limits())
    assert await again.resume() == 5, "the disk had taken what it was given"
    await again.end(5)
