"""The disk journal when its disk, or what it holds, is not what it should be: it says so, loses no more than the
disk did, and goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from ingestor.batching import Backoff, BatchWorker, FlushPolicy
from ingestor.errors import JournalProblem, Overloaded, TooLate, Unavailable
from ingestor.journal import RequestIds
from ingestor.journal import backlog as backlog_module
from ingestor.journal import inlet as inlet_module
from ingestor.journal.log import JournalFailed
from ingestor.model import Ack, DeadRow, Delivery, MetricBatch, Outcome, Request, StoredRequest
from ingestor.telemetry import Telemetry
from tests.journal.contract import MANY, batch, turns, until, values
from tests.journal.disk_kit import MIB, Brakes, opened, written

REQUEST = Request("", "r", b"f" * 16, 1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing or full disk is tried again soon."""
    monkeypatch.setattr(inlet_module, "_REST_S", 0.02)


def unreadable(after: int) -> NoReturn:
    """There are no file descriptors left."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def committed(log: Brakes, position: int) -> bool:
    """Whether the log knows that the database has that."""
    return bool(log.committed_hint == position)


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


async def test_who_waits_at_the_end_is_told(tmp_path: Path) -> None:
    """The disk did not answer in time. It may be written all the same, so nobody is told that it was not taken."""
    async with opened(tmp_path) as (journal, log):
        log.go.clear()
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        await journal.offer(batch(3), Ack.QUEUED)
        ending = asyncio.create_task(journal.end(0.05))
        await asyncio.sleep(0.1)
        log.go.set()
        assert await asyncio.wait_for(ending, 5) == 3
        with pytest.raises(TooLate):
            await asyncio.wait_for(waiting, 5)


async def test_who_waits_at_the_end_behind_a_rewind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer itself still waited for the log when its time was up."""
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
        assert await asyncio.wait_for(ending, 5) == 3
        with pytest.raises(TooLate, match="may still be stored"):
            await asyncio.wait_for(waiting, 5)
        await rewinding


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


async def test_what_the_database_lost_is_kept_also_when_it_can_not_be_read_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is to be stored again; and a repetition must not hear that it is stored already."""
    ids = RequestIds()
    async with opened(tmp_path, None, ids, bytes_max=MIB) as (journal, log):
        await journal.offer(batch(5_000, 1.0), Ack.JOURNALED, Request("", "r", b"f" * 16, 5_000))
        await journal.settle(await journal.read(MANY), Outcome())
        await until(lambda: log.committed_hint == 1)
        with monkeypatch.context() as broken:
            broken.setattr(log, "pending", unreadable)
            with pytest.raises(JournalProblem, match="can't be read: too many open files"):
                await journal.rewind(0)
        assert await ids.find(Request("", "r", b"f" * 16, 5_000)) is None
        assert (journal.held_rows, journal.waiting_rows) == (0, 0)
        await journal.offer(batch(1, 2.0), Ack.JOURNALED)
        assert log.committed_hint == 0
        assert await journal.rewind(0) == 5_000
        assert values(await journal.read(MANY)) == [1.0] * 5_000 + [2.0]


async def test_the_log_hears_of_each_commit(tmp_path: Path) -> None:
    """Soon, also when nothing is written any more: the room is somebody's."""
    async with opened(tmp_path) as (journal, log):
        for position in (1, 2, 3):
            await journal.offer(batch(), Ack.JOURNALED)
            await journal.settle(await journal.read(MANY), Outcome())
            await until(partial(committed, log, position))


def _flip_in_the_middle(path: Path) -> None:
    segment = next(path.glob("journal/*.segment"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)


async def test_who_waits_for_what_the_disk_lost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is good around it is stored; the lost one can be sent again under its name."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    lost: list[int] = []
    ids = RequestIds()
    async with opened(tmp_path, None, ids, on_lost=lost.append) as (journal, _):
        names = [Request("", str(number), b"f" * 16, 100) for number in range(3)]
        for name in names:
            await journal.offer(batch(100), Ack.JOURNALED, name)
        second = await ids.find(names[1])
        assert second is not None
        waiting = asyncio.create_task(second.reached(Ack.COMMITTED))
        await turns()
        _flip_in_the_middle(tmp_path)
        entries = await journal.read(MANY)
        assert [entry.position for entry in entries] == [1, 3]
        assert lost == [100]
        await journal.settle(entries, Outcome())
        with pytest.raises(Unavailable, match="lost"):
            await asyncio.wait_for(waiting, 5)
        assert journal.held_rows == 0
        assert await ids.find(names[0]) is not None
        assert await ids.find(names[1]) is None


async def test_who_waits_for_the_last_that_the_disk_lost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing behind it whose commit would tell."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    async with opened(tmp_path) as (journal, _):
        waiting = asyncio.create_task(journal.offer(batch(100), Ack.COMMITTED))
        await until(lambda: journal.waiting_rows == 100)
        _flip_in_the_middle(tmp_path)
        assert await journal.read(MANY) == []
        with pytest.raises(Unavailable, match="lost"):
            await asyncio.wait_for(waiting, 5)
        assert (journal.held_rows, journal.waiting_rows) == (0, 0)


async def test_after_a_crash_a_repetition_hears_what_the_database_says(tmp_path: Path) -> None:
    """The log's hint lags behind the database's cursor: what lies between is stored, and some of it dead."""
    async with opened(tmp_path) as (journal, _):
        await journal.offer(batch(), Ack.JOURNALED, REQUEST)
    dead = (DeadRow(0, "23514", "no"),)

    async def lookup(keys: object) -> dict[tuple[str, str], StoredRequest]:
        return {REQUEST.key: StoredRequest(REQUEST, dead)}

    ids = RequestIds()
    async with opened(tmp_path, None, ids) as (journal, _):
        held = await ids.find(REQUEST)
        assert held is not None
        waiting = asyncio.create_task(held.reached(Ack.COMMITTED))
        await turns()
        ids.lookup = lookup
        await journal.rewind(1)
        assert await asyncio.wait_for(waiting, 5) == dead
        again = await ids.find(REQUEST)
        assert again is not None
        assert await again.reached(Ack.COMMITTED) == dead


async def test_a_repetition_is_not_acknowledged_before_the_first_is_kept(tmp_path: Path) -> None:
    """The first waits for the disk and comes to nothing when that fails; so a repetition waits for it, too,
    whatever it asks for."""
    ids = RequestIds()
    async with opened(tmp_path, None, ids) as (journal, log):
        log.go.clear()
        first = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED, REQUEST))
        await until(lambda: log.appends == 1)
        held = await ids.find(REQUEST)
        assert held is not None
        second = asyncio.create_task(held.reached(Ack.QUEUED))
        await turns()
        assert not second.done()
        log.failures = [JournalFailed("input/output error")]
        log.go.set()
        for each in (first, second):
            with pytest.raises(Overloaded, match="nothing was taken"):
                await asyncio.wait_for(each, 5)
        assert await ids.find(REQUEST) is None, "whoever sends it again begins anew"


async def test_positions_are_not_given_out_again_while_the_database_is_away(tmp_path: Path) -> None:
    """A disk lost the end of the log, and with it that the database had it. What is taken then is not taken for
    what the database has."""
    async with opened(tmp_path) as (journal, _):
        for _ in range(3):
            await journal.offer(batch(), Ack.JOURNALED)
        await journal.settle(await journal.read(MANY), Outcome())
    segment = next(tmp_path.glob("journal/*.segment"))
    os.truncate(segment, segment.stat().st_size - 200)
    async with opened(tmp_path, at=None) as (journal, log):
        assert log.last < 3
        await journal.leap()
        for value in (4.0, 5.0):
            await journal.offer(batch(1, value), Ack.JOURNALED)
        assert log.recovery.gaps == []
    async with opened(tmp_path, at=None) as (journal, log):  # and once more without it
        await journal.leap()
        await journal.offer(batch(1, 6.0), Ack.JOURNALED)
        held = journal.held_rows
        assert await journal.rewind(3) == 3 - held
        entries = await journal.read(MANY)
        assert values(entries) == [4.0, 5.0, 6.0]
        await journal.settle(entries, Outcome())
        assert log.recovery.gaps == []
    async with opened(tmp_path, at=entries[-1].position) as (journal, log):
        assert (journal.held_rows, log.recovery.gaps, log.recovery.damaged) == (0, [], [])


async def test_the_age_of_what_can_not_be_written_is_told(tmp_path: Path) -> None:
    """It is acknowledged, and nowhere safe: that is when somebody should look."""
    async with opened(tmp_path) as (journal, log):
        log.failures = [JournalFailed(os.strerror(errno.EIO)) for _ in range(3)]
        await journal.offer(batch(), Ack.QUEUED)
        await until(lambda: journal.problem is not None)
        await asyncio.sleep(0.05)
        assert journal.oldest_age_s() >= 0.05
        log.failures.clear()
        await written(journal)
