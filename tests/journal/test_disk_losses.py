"""The disk journal when something is lost, by the disk or by the database: who waits or repeats is told what is so,
and no position is given out again."""

from __future__ import annotations

import asyncio
import errno
import os
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from ingestor.errors import JournalProblem, Overloaded, Unavailable
from ingestor.journal import RequestIds
from ingestor.journal import backlog as backlog_module
from ingestor.journal.limits import JournalFailed
from ingestor.model import Ack, DeadRow, Outcome, Request, StoredRequest
from tests.journal.contract import MANY, batch, turns, until, values
from tests.journal.disk_kit import MIB, Brakes, opened, written

REQUEST = Request("", "r", b"f" * 16, 1)


def unreadable(after: int) -> NoReturn:
    """There are no file descriptors left."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def committed(log: Brakes, position: int) -> bool:
    """Whether the log knows that the database has that."""
    return bool(log.committed_hint == position)


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
