"""The disk journal keeps the contract, and what is its own: who is acknowledged when, what a crash leaves, and what
is read from disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from ingestor.errors import Overloaded, Unavailable
from ingestor.journal import DiskJournal, QueueLimits, RequestIds
from ingestor.journal import backlog as backlog_module
from ingestor.journal import inlet as inlet_module
from ingestor.journal.kernel_sync import KernelSync
from ingestor.journal.limits import JournalFull
from ingestor.model import Ack, DeadRow, Outcome, Request
from tests.journal.contract import MANY, JournalContract, batch, settle_all, turns, until, values
from tests.journal.disk_kit import MIB, needs_kernel, opened, written


class TestDiskJournal(JournalContract):
    """The contract."""

    ack = Ack.JOURNALED
    syncs: Callable[[], KernelSync | None] = staticmethod(lambda: None)

    @asynccontextmanager
    async def open(
        self, path: Path, limits: QueueLimits, requests: RequestIds | None
    ) -> AsyncIterator[DiskJournal]:
        async with opened(path, limits, requests, syncs=self.syncs()) as (journal, _):
            yield journal


@needs_kernel
class TestDiskJournalThatTheKernelSyncs(TestDiskJournal):
    """The same, where small writes are not for the thread."""

    syncs = staticmethod(KernelSync.open)


async def test_journaled_means_synced(tmp_path: Path) -> None:
    """Nobody is acknowledged before the sync returns, but those who only want to be queued; none is readable."""
    async with opened(tmp_path / "journal") as (journal, log):
        log.go.clear()
        await asyncio.wait_for(journal.offer(batch(2), Ack.QUEUED), 5)
        waiting = asyncio.create_task(journal.offer(batch(3), Ack.JOURNALED))
        await turns(50)
        assert not waiting.done()
        assert (journal.waiting_rows, journal.unwritten_rows) == (0, 5)
        log.go.set()
        await asyncio.wait_for(waiting, 5)
        await written(journal)
        assert journal.waiting_rows == 5


async def test_those_who_come_during_a_sync_share_the_next(tmp_path: Path) -> None:
    """However many they are."""
    async with opened(tmp_path / "journal") as (journal, log):
        log.go.clear()
        first = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        others = [asyncio.create_task(journal.offer(batch(), Ack.JOURNALED)) for _ in range(100)]
        await turns()
        log.go.set()
        await asyncio.gather(first, *others)
        assert log.appends == 2


async def test_what_is_written_at_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came first is not kept waiting for the last of many."""
    monkeypatch.setattr(inlet_module, "_GROUP_BYTES_MAX", 3 * batch().size_bytes)
    async with opened(tmp_path / "journal") as (journal, log):
        log.go.clear()
        for number in range(8):
            await journal.offer(batch(1, float(number)), Ack.QUEUED)
            await until(lambda: log.appends == 1)
        log.go.set()
        await written(journal)
        assert log.appends == 1 + 3
        assert values(await journal.read(MANY)) == [float(number) for number in range(8)]


async def test_what_was_acknowledged_outlives_us(tmp_path: Path) -> None:
    """Another process finds it behind the database's cursor, with its requests; the rest it leaves alone."""
    request = Request("", "r", b"f" * 16, 2, b"rejected")
    async with opened(tmp_path / "journal") as (journal, _):
        await journal.offer(batch(1, 1.0), Ack.JOURNALED)
        await journal.offer(batch(2, 2.0), Ack.JOURNALED, request)
        entries = await journal.read(1)
        await journal.settle(entries, Outcome())
    ids = RequestIds()
    async with opened(tmp_path / "journal", None, ids, at=entries[-1].position) as (journal, _):
        assert journal.held_rows == journal.waiting_rows == 2
        found = await ids.find(request)
        assert found is not None
        assert found.request == request
        assert values(await journal.read(MANY)) == [2.0, 2.0]


async def test_a_backlog_is_kept_on_disk_and_not_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound, what nobody reads takes no memory; it is read in order all the same, new rows behind it."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 64 * 1024)
    async with opened(tmp_path / "journal") as (journal, _):
        expected = []
        for number in range(40):
            await journal.offer(batch(1_000, float(number)), Ack.JOURNALED)
            expected += [float(number)] * 1_000
        assert journal.waiting_rows == 40_000
        assert journal.held_bytes < 128 * 1024
        found: list[float] = []
        number = 40
        while journal.held_rows:
            entries = await journal.read(3_000)
            found += values(entries)
            await journal.settle(entries, Outcome())
            if number < 60:
                await journal.offer(batch(1_000, float(number)), Ack.JOURNALED)
                expected += [float(number)] * 1_000
                number += 1
        assert found == expected


async def test_rows_that_are_read_from_disk_are_settled_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for their commit hears of it, and of dead rows."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    async with opened(tmp_path / "journal") as (journal, _):
        waiting = asyncio.create_task(journal.offer(batch(3), Ack.COMMITTED))
        await asyncio.wait_for(journal.wait(3, None), 5)
        await journal.settle(await journal.read(MANY), Outcome(dead=[DeadRow(2, None, "bad")]))
        assert await waiting == (DeadRow(2, None, "bad"),)


async def test_the_disk_is_read_only_for_what_is_on_it_alone(tmp_path: Path) -> None:
    """The worker asks again and again; mostly all is in memory, or there is nothing."""
    async with opened(tmp_path / "journal") as (journal, log):
        log.unreadable = 1
        assert await journal.read(MANY) == []
        await journal.offer(batch(), Ack.JOURNALED)
        assert len(await journal.read(MANY)) == 1
        assert await journal.read(MANY) == []
        assert log.unreadable == 1


async def test_what_was_read_is_not_lost_with_what_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on its way to the database, in as many batches as there are."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    async with opened(tmp_path) as (journal, _):
        waiting = []
        for _ in range(3):
            waiting.append(asyncio.create_task(journal.offer(batch(100), Ack.COMMITTED)))
            await turns()
            await written(journal)
        file = next(tmp_path.glob("journal/*.segment"))
        file.write_bytes(file.read_bytes()[:-200] + b"x" * 200)
        first, second = await journal.read(1), await journal.read(1)
        assert await journal.read(1) == []
        with pytest.raises(Unavailable, match="lost"):
            await asyncio.wait_for(waiting[2], 5)
        for entries, told in ((first, waiting[0]), (second, waiting[1])):
            await turns()
            assert not told.done()
            await journal.settle(entries, Outcome())
            assert await asyncio.wait_for(told, 5) == ()


async def test_a_write_tells_the_log_what_is_committed(tmp_path: Path) -> None:
    """By the way, so that nothing else has to in a while."""
    async with opened(tmp_path) as (journal, log):
        await journal.offer(batch(), Ack.JOURNALED)
        await settle_all(journal)
        assert log.committed_hint == 0
        await journal.offer(batch(), Ack.JOURNALED)
        assert log.committed_hint == 1


async def test_when_a_request_came_is_on_the_disk(tmp_path: Path) -> None:
    """Not when it was written: it may have waited long for a disk that failed."""
    now_s = 1_000.0
    async with opened(tmp_path, clock=lambda: now_s) as (journal, log):
        log.go.clear()
        await journal.offer(batch(), Ack.QUEUED)
        await until(lambda: log.appends == 1)
        await journal.offer(batch(), Ack.QUEUED)
        now_s += 500.0
        log.go.set()
        await written(journal)
        ages_s = [time.time() - each.taken_at_us / 1e6 for each in log.read(0, MANY, MANY)]
        assert 0 <= ages_s[0] < 100
        assert 500 <= ages_s[1] < 600


async def test_a_full_disk_refuses_and_takes_nothing(tmp_path: Path) -> None:
    """Who waits for the sync is refused; who was acknowledged as queued stays, and is written later."""
    async with opened(tmp_path / "journal") as (journal, log):
        log.go.clear()
        first = asyncio.create_task(journal.offer(batch(1, 0.0), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        await journal.offer(batch(1, 1.0), Ack.QUEUED)
        refused = asyncio.create_task(journal.offer(batch(1, 2.0), Ack.JOURNALED))
        await turns()
        log.failures = [JournalFull("no space left on device")]
        log.skipped = 1
        log.go.set()
        await first
        with pytest.raises(Overloaded, match="nothing was taken"):
            await refused
        told = [journal.problem]
        assert journal.full
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        await asyncio.wait_for(written(journal), 5)
        assert [*told, journal.problem] == ["no space left on device", None]
        await journal.offer(batch(1, 3.0), Ack.JOURNALED)
        assert values(await journal.read(MANY)) == [0.0, 1.0, 3.0]


async def test_a_full_journal_while_the_database_is_gone_is_an_outage(tmp_path: Path) -> None:
    """UNAVAILABLE: trying another gateway helps. While the database works it is an overload, which passes."""
    reasons: list[str | None] = ["connection refused", None]
    async with opened(tmp_path / "journal", bytes_max=MIB, outage=lambda: reasons[0]) as (journal, _):
        with pytest.raises(Unavailable, match="the database takes nothing"):
            for _ in range(100):
                await journal.offer(batch(1_000), Ack.JOURNALED)
        reasons.pop(0)
        with pytest.raises(Overloaded):
            await journal.offer(batch(1_000), Ack.JOURNALED)
        rows = journal.held_rows
        assert rows > 0
        while journal.held_rows:
            await journal.settle(await journal.read(MANY), Outcome())
        for _ in range(100):  # room is made aside
            if journal.room_bytes > MIB // 2:
                break
            await asyncio.sleep(0.01)
        await journal.offer(batch(1_000), Ack.JOURNALED)


async def test_what_the_books_count_is_what_is_kept(tmp_path: Path) -> None:
    """Rows are counted as taken when they are acknowledged at most as queued, or are durable; never both."""
    taken: list[int] = []
    async with opened(tmp_path / "journal", on_taken=taken.append) as (journal, log):
        await journal.offer(batch(1), Ack.QUEUED)
        await journal.offer(batch(2), Ack.JOURNALED)
        log.failures = [JournalFull("full")]
        with pytest.raises(Overloaded):
            await journal.offer(batch(4), Ack.JOURNALED)
        assert sum(taken) == journal.held_rows == 3
        while journal.problem is not None:
            await asyncio.sleep(0.01)
        log.go.clear()
        await journal.offer(batch(5), Ack.QUEUED)
        assert sum(taken) == journal.held_rows == 8
        assert (journal.waiting_rows, journal.unwritten_rows) == (3, 5)


async def test_a_database_that_lost_commits_gets_them_again(tmp_path: Path) -> None:
    """Settled entries are still there for a while: rewound, they are read again, and what follows them."""
    async with opened(tmp_path / "journal") as (journal, _):
        for value in (1.0, 2.0, 3.0):
            await journal.offer(batch(1, value), Ack.JOURNALED)
            entries = await journal.read(MANY)
            await journal.settle(entries, Outcome())
        await journal.offer(batch(1, 4.0), Ack.JOURNALED)
        assert await journal.rewind(1) == 2
        assert journal.held_rows == 3
        assert values(await journal.read(MANY)) == [2.0, 3.0, 4.0]


async def test_what_is_stored_again_makes_room_again(tmp_path: Path) -> None:
    """All of it in one go, up to where the database had been before."""
    async with opened(tmp_path, bytes_max=40_000, retention_s=3_600) as (journal, log):
        with pytest.raises(Overloaded):
            while True:
                await journal.offer(batch(50), Ack.JOURNALED)
        await settle_all(journal)
        await until(lambda: log.committed_hint == log.last)
        await journal.rewind(0)
        with pytest.raises(Overloaded):
            await journal.offer(batch(50), Ack.JOURNALED)
        full_bytes = journal.room_bytes
        await settle_all(journal)
        await until(lambda: journal.room_bytes > full_bytes)
        await journal.offer(batch(50), Ack.JOURNALED)


async def test_a_database_that_is_ahead_is_not_given_old_positions(tmp_path: Path) -> None:
    """As when DATA_DIR was restored from a copy: new entries come behind what the database has."""
    async with opened(tmp_path / "journal", at=1_000) as (journal, _):
        await journal.offer(batch(1, 1.0), Ack.JOURNALED)
        [entry] = await journal.read(MANY)
        assert entry.position == 1_001


async def test_the_age_of_what_waits_survives_a_restart(tmp_path: Path) -> None:
    """By the calendar, as monotonic clocks start anew."""
    async with opened(tmp_path / "journal") as (journal, _):
        await journal.offer(batch(), Ack.JOURNALED)
        await asyncio.sleep(0.05)
    async with opened(tmp_path / "journal") as (journal, _):
        assert 0.05 <= journal.oldest_age_s() < 30


async def test_what_was_removed_is_known_to_be_committed(tmp_path: Path) -> None:
    """Files go once they are committed, and a crash may come before the log says so: no gap is reported."""
    for number in range(3):
        async with opened(tmp_path, at=number) as (journal, log):
            await journal.bind(UUID(int=number))  # begins a file
            await journal.offer(batch(), Ack.JOURNALED)
    async with opened(tmp_path, at=None) as (journal, log):
        log.committed(2)
        oldest = min(tmp_path.glob("journal/*.segment"))
        hint = log.committed_hint
        assert oldest.name > "000000000001.segment"
    async with opened(tmp_path, at=None) as (journal, log):
        assert (log.committed_hint, log.recovery.gaps) == (hint, [])
        assert (log.first, journal.held_rows) == (3, 1)
