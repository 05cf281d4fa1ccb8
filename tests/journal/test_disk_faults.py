"""The disk journal when its disk, or what it holds, is not what it should be: it says so, loses no more than the
disk did, and goes on by itself."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from ingestor.batching import Backoff, BatchWorker, FlushPolicy
from ingestor.errors import JournalProblem, Overloaded, TooLate, Unavailable
from ingestor.journal import RequestIds
from ingestor.journal import backlog as backlog_module
from ingestor.journal import inlet as inlet_module
from ingestor.journal.limits import JournalFailed
from ingestor.model import Ack, Delivery, MetricBatch, Outcome, Request
from ingestor.telemetry import Telemetry
from tests.journal.contract import MANY, batch, turns, until, values
from tests.journal.disk_kit import opened

REQUEST = Request("", "r", b"f" * 16, 1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing or full disk is tried again soon."""
    monkeypatch.setattr(inlet_module, "_REST_S", 0.02)


class Stored:
    """A repository that takes everything."""

    def __init__(self) -> None:
        self.rows = 0

    def arrange(self, batch: MetricBatch) -> MetricBatch:
        return batch

    async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome:
        self.rows += delivery.batch.rows
        return Outcome()


@pytest.mark.usefixtures("impatient")
async def test_room_that_others_make_is_found(tmp_path: Path) -> None:
    """Somebody filled the file system, so that nobody gets in and nothing changes here; then it is free again."""
    async with opened(tmp_path) as (journal, log):
        log.room = 0
        await journal.offer(batch(), Ack.JOURNALED)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.JOURNALED)
        await journal.settle(await journal.read(MANY), Outcome())
        await asyncio.sleep(0.1)
        assert journal.full
        log.room = None
        await asyncio.wait_for(until(lambda: not journal.full), 5)
        await journal.offer(batch(), Ack.JOURNALED)


@pytest.mark.usefixtures("impatient")
async def test_room_for_nobody_is_looked_for_as_well(tmp_path: Path) -> None:
    """Some is left, and less than any request needs."""
    async with opened(tmp_path) as (journal, log):
        log.room = 900
        await journal.offer(batch(), Ack.JOURNALED)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.JOURNALED)
        seen = log.looks
        await until(lambda: log.looks > seen + 2)
        assert journal.full
        log.room = 100
        await until(lambda: journal.room_bytes == 100)
        log.room = None
        await asyncio.wait_for(until(lambda: not journal.full), 5)
        await journal.offer(batch(), Ack.JOURNALED)


@pytest.mark.usefixtures("impatient")
async def test_who_comes_while_room_is_looked_for_is_written_before_the_end(tmp_path: Path) -> None:
    """An end at that moment waits for it."""
    async with opened(tmp_path) as (journal, log):
        await journal.offer(batch(), Ack.JOURNALED)
        log.looks, log.looking = 0, asyncio.Event()
        await asyncio.wait_for(until(lambda: log.looks > 0), 5)
        waiting = asyncio.create_task(journal.offer(batch(2), Ack.JOURNALED))
        await turns()
        ending = asyncio.create_task(journal.end(5))
        await turns()
        log.looking.set()
        await asyncio.wait_for(waiting, 5)
        assert await ending == 0


async def test_the_end_waits_for_no_disk_without_need(tmp_path: Path) -> None:
    """There is nothing to be written; and what is not acknowledged is not lost."""
    async with opened(tmp_path) as (journal, log):
        log.failures = [JournalFailed("input/output error") for _ in range(1_000)]
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.JOURNALED)
        assert await asyncio.wait_for(journal.end(60), 5) == 0


async def test_the_end_waits_for_what_is_being_written(tmp_path: Path) -> None:
    """Its time is up, but nobody could say whether that is there. What comes behind it is not begun any more. All
    rows are counted once: those that were taken are lost now, or pending at the next start."""
    taken: list[int] = []
    async with opened(tmp_path, on_taken=taken.append) as (journal, log):
        log.go.clear()
        await journal.offer(batch(4), Ack.QUEUED)
        waiting = asyncio.create_task(journal.offer(batch(2), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        await journal.offer(batch(3), Ack.QUEUED)
        late = asyncio.create_task(journal.offer(batch(10), Ack.JOURNALED))
        await turns()
        ending = asyncio.create_task(journal.end(0))
        await turns(20)
        log.go.set()
        assert await asyncio.wait_for(ending, 5) == 3
        await asyncio.wait_for(waiting, 5)
        with pytest.raises(TooLate, match="may still be stored"):
            await asyncio.wait_for(late, 5)
        assert (journal.held_rows, sum(taken)) == (6 + 3, 4 + 3 + 2)
    async with opened(tmp_path) as (journal, log):
        assert journal.held_rows == 6


async def test_the_end_waits_however_long_the_disk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files can't be closed before, so nobody would gain from giving up; and what is told as lost is lost."""
    loop = asyncio.get_running_loop()
    async with opened(tmp_path) as (journal, log):
        log.go.clear()
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        ending = asyncio.create_task(journal.end(0))
        await turns(20)
        hours_later = loop.time() + 10_000.0
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: hours_later)
            await turns(20)
        log.go.set()
        assert await asyncio.wait_for(ending, 5) == 0
        await asyncio.wait_for(waiting, 5)


async def test_who_waits_at_the_end_behind_a_rewind_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer itself still waited for the log when its time was up, and its turn came."""
    async with opened(tmp_path) as (journal, log):
        held, go, real = threading.Event(), threading.Event(), log.rewound

        def rewound(position: int) -> object:
            held.set()
            assert go.wait(30)
            return real(position)

        monkeypatch.setattr(log, "rewound", rewound, raising=False)
        rewinding = asyncio.create_task(journal.rewind(0))
        await until(held.is_set)
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await turns()
        await journal.offer(batch(3), Ack.QUEUED)
        await turns(20)
        ending = asyncio.create_task(journal.end(0))
        await turns(20)
        go.set()
        assert await asyncio.wait_for(ending, 5) == 0
        await asyncio.wait_for(waiting, 5)
        await rewinding


async def test_who_waits_for_a_commit_at_the_end_is_told(tmp_path: Path) -> None:
    """Also who came with its name later. It is on the disk, so nobody is told that nothing was taken: sent again it
    would be there twice."""
    ids = RequestIds()
    async with opened(tmp_path, None, ids) as (journal, _):
        waiting = [asyncio.create_task(journal.offer(batch(), Ack.COMMITTED, REQUEST))]
        await until(lambda: journal.waiting_rows == 1)
        held = await ids.find(REQUEST)
        assert held is not None
        waiting.append(asyncio.create_task(held.reached(Ack.COMMITTED)))
        await turns()
        assert await journal.end(5) == 0
        for each in waiting:
            with pytest.raises(TooLate, match="kept in the journal"):
                await asyncio.wait_for(each, 5)
    async with opened(tmp_path) as (journal, _):
        assert journal.held_rows == 1


@pytest.mark.parametrize("hook", ["on_synced", "on_taken"])
async def test_who_shares_a_write_is_told_of_it_whatever_others_do_then(tmp_path: Path, hook: str) -> None:
    """A mistake of ours in what hears of each write: the rows are on the disk, and can be stored; the writer says
    why it died."""

    def fails(_: object) -> None:
        msg = "a mistake of ours"
        raise ValueError(msg)

    taken: list[int] = []
    hooks: dict[str, Any] = {"on_taken": taken.append, hook: fails}
    async with opened(tmp_path, **hooks) as (journal, _):
        levels = (Ack.JOURNALED, Ack.JOURNALED, Ack.COMMITTED)
        waiting = [asyncio.create_task(journal.offer(batch(), level)) for level in levels]
        await asyncio.wait_for(asyncio.gather(*waiting[:2]), 5)
        assert "a mistake of ours" in str(journal.problem)
        assert (journal.held_rows, journal.waiting_rows, journal.unwritten_rows) == (3, 3, 0)
        assert sum(taken) == (3 if hook == "on_synced" else 0)
        await journal.settle(await journal.read(MANY), Outcome())
        assert await asyncio.wait_for(waiting[2], 5) == ()


async def test_who_is_queued_is_written_whatever_others_do_then(tmp_path: Path) -> None:
    """The same mistake as somebody comes in, who hears of it."""
    failures = [ValueError("a mistake of ours")]

    def fails(_: object) -> None:
        if failures:
            raise failures.pop()

    async with opened(tmp_path, on_taken=fails) as (journal, _):
        with pytest.raises(ValueError, match="a mistake of ours"):
            await journal.offer(batch(2), Ack.QUEUED)
        await until(lambda: journal.waiting_rows == 2)


async def test_who_waits_for_the_commit_of_what_is_being_written_is_heard(tmp_path: Path) -> None:
    """The first only wanted it on the disk; a repetition comes before it is there."""
    ids = RequestIds()
    async with opened(tmp_path, None, ids) as (journal, log):
        log.go.clear()
        first = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED, REQUEST))
        await until(lambda: log.appends == 1)
        held = await ids.find(REQUEST)
        assert held is not None
        second = asyncio.create_task(held.reached(Ack.COMMITTED))
        await turns()
        log.go.set()
        await first
        assert journal.pressed
        await journal.settle(await journal.read(MANY), Outcome())
        await asyncio.wait_for(second, 5)


@pytest.mark.usefixtures("impatient")
async def test_a_disk_that_does_not_say_how_full_it_is_is_written_to(tmp_path: Path) -> None:
    """What is written is acknowledged; writing will tell when it is full."""
    async with opened(tmp_path) as (journal, log):
        log.room = -1
        for value in (1.0, 2.0):
            await asyncio.wait_for(journal.offer(batch(1, value), Ack.JOURNALED), 5)
        assert values(await journal.read(MANY)) == [1.0, 2.0]


@pytest.mark.usefixtures("impatient")
async def test_a_failing_disk_stays_a_problem_until_it_takes_something(tmp_path: Path) -> None:
    """Also when nobody sends anything meanwhile: otherwise a load balancer would send the next to fail."""
    async with opened(tmp_path) as (journal, log):
        log.failures = [JournalFailed("input/output error") for _ in range(5)]
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.JOURNALED)
        seen = set()
        while log.failures:
            seen.add(journal.problem)
            await asyncio.sleep(0.001)
        assert seen == {"input/output error"}
        await asyncio.wait_for(until(lambda: journal.problem is None), 5)
        assert (journal.held_rows, journal.held_bytes, journal.unwritten_rows) == (0, 0, 0)
        await journal.offer(batch(), Ack.JOURNALED)


async def test_who_was_not_surely_refused_is_told_so(tmp_path: Path) -> None:
    """The disk would not even cut off what it failed to write: a crash may bring it back. Who comes then is."""
    async with opened(tmp_path) as (journal, log):
        log.failures = [JournalFailed("input/output error", certain=False)]
        with pytest.raises(Unavailable, match="input/output error: it may still be stored"):
            await journal.offer(batch(), Ack.JOURNALED)
        with pytest.raises(Overloaded, match="input/output error: nothing was taken"):
            await journal.offer(batch(), Ack.JOURNALED)


async def test_a_writer_that_dies_is_told_and_nobody_hangs(tmp_path: Path) -> None:
    """It never should. Then who waits hears of it, whoever comes is refused, and what was queued counts as lost."""
    ids = RequestIds()
    async with opened(tmp_path, None, ids) as (journal, log):
        log.go.clear()
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        await journal.offer(batch(3), Ack.QUEUED, REQUEST)
        held = await ids.find(REQUEST)
        assert held is not None
        repeated = asyncio.create_task(held.reached(Ack.JOURNALED))
        log.failures = [ValueError("a mistake of ours")]
        log.go.set()
        with pytest.raises(Unavailable, match="a mistake of ours.*may still be stored"):
            await asyncio.wait_for(waiting, 5)
        assert journal.full
        assert "restart the server" in str(journal.problem)
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.QUEUED)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(repeated, 5)
        assert await ids.find(REQUEST) is None
        assert await asyncio.wait_for(journal.end(30), 5) == 3


async def test_the_worker_outlives_a_journal_that_can_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when there are no file descriptors left for a moment: it says so, and asks again."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    async with opened(tmp_path) as (journal, log):
        for _ in range(3):
            await journal.offer(batch(10), Ack.JOURNALED)
        log.unreadable = 3
        with pytest.raises(JournalProblem, match="too many open files"):
            await journal.read(MANY)
        repository = Stored()
        backoff = Backoff(first_s=0.02)
        worker = BatchWorker(journal, repository, FlushPolicy(10, 0.01), Telemetry(), backoff=backoff)
        worker.start_batch_processing()
        await until(lambda: worker.failure is not None)
        assert str(worker.failure) == "the journal can't be read: too many open files"
        await asyncio.wait_for(until(lambda: repository.rows == 30), 5)
        await until(lambda: journal.held_rows == 0 and worker.failure is None)
        assert worker.death is None
        log.unreadable = 2
        await journal.rewind(0)
        await until(lambda: worker.failure is not None)
        await asyncio.wait_for(until(lambda: journal.held_rows == 0), 5)
        journal.close()
        assert await worker.drain(5)
