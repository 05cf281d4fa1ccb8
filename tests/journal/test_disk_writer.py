"""The disk journal's writer: when it tries again, what it says, and how it ends, be it by a mistake of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from ingestor.errors import Invalid, Overloaded, Unavailable
from ingestor.journal import DiskJournal, RequestIds
from ingestor.journal import inlet as inlet_module
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.limits import JournalFailed, LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.model import Ack, Request
from tests.journal.contract import batch, limits, turns, until
from tests.journal.disk_kit import MIB, opened

REQUEST = Request("", "r", b"f" * 16, 1)
DIED = "the journal's writer died: nothing is taken any more"


@pytest.fixture
def told() -> Iterator[list[str]]:
    """All that the log says."""
    words: list[str] = []
    sink = logger.add(lambda message: words.append(message.record["message"]), level="INFO")
    yield words
    logger.remove(sink)


@pytest.fixture
async def mishaps() -> list[dict[str, Any]]:
    """What the event loop hears of callbacks that failed."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_a_disk_that_fails_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It isn't tried again at once, however often others use the log meanwhile."""
    monkeypatch.setattr(inlet_module, "_REST_S", 60.0)
    async with opened(tmp_path) as (journal, log):
        log.failures = [JournalFailed("input/output error")]
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.JOURNALED)
        for _ in range(3):
            await journal.rewind(0)
        assert (log.appends, journal.problem) == (1, "input/output error")


async def test_a_disk_that_fails_is_told_once_and_its_recovery_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    """However often it is tried."""
    monkeypatch.setattr(inlet_module, "_REST_S", 0.001)
    async with opened(tmp_path) as (journal, log):
        await journal.offer(batch(), Ack.JOURNALED)
        log.failures = [JournalFailed("input/output error") for _ in range(3)]
        with pytest.raises(Overloaded):
            await journal.offer(batch(), Ack.JOURNALED)
        await until(lambda: journal.problem is None)
        await journal.offer(batch(), Ack.JOURNALED)
    assert told == [
        "the journal can't be written, so requests are refused: input/output error",
        "the journal can be written again",
    ]


async def test_a_repetition_of_what_is_queued_waits_for_no_disk(tmp_path: Path) -> None:
    """The first was acknowledged without it."""
    ids = RequestIds()
    async with opened(tmp_path, None, ids) as (journal, log):
        log.go.clear()
        await journal.offer(batch(), Ack.QUEUED, REQUEST)
        held = await ids.find(REQUEST)
        assert held is not None
        assert await asyncio.wait_for(held.reached(Ack.QUEUED), 5) == ()
        assert journal.unwritten_rows == 1


async def test_a_journal_that_took_nothing_ends(tmp_path: Path) -> None:
    """As when the server fails to start for another reason."""
    log = SegmentLog.open(DiskDirectory.open(tmp_path), LogLimits(64 * MIB))
    journal = DiskJournal(log, limits())
    assert await asyncio.wait_for(journal.end(60), 5) == 0
    SegmentLog.open(DiskDirectory.open(tmp_path), LogLimits(64 * MIB)).close()


async def test_an_orderly_end_says_nothing(
    tmp_path: Path, warnings: list[str], mishaps: list[dict[str, Any]]
) -> None:
    """The writer is cancelled then, which is no mistake."""
    async with opened(tmp_path) as (journal, _):
        await journal.offer(batch(), Ack.JOURNALED)
    await turns()
    assert (journal.problem, warnings, mishaps) == (None, [], [])


async def test_a_writer_that_somebody_else_cancels_is_told(
    tmp_path: Path, warnings: list[str], mishaps: list[dict[str, Any]]
) -> None:
    """Nothing would be written any more, and nobody would know why."""
    async with opened(tmp_path) as (journal, _):
        [writer] = [task for task in asyncio.all_tasks() if task.get_name() == "journal-writer"]
        writer.cancel()
        await asyncio.wait([writer])
        await turns()
        assert "restart the server" in str(journal.problem)
        with pytest.raises(Overloaded, match="not foreseen"):
            await journal.offer(batch(), Ack.JOURNALED)
    assert (warnings, mishaps) == ([DIED], [])


async def test_a_writer_that_dies_at_the_end_is_told(tmp_path: Path, warnings: list[str]) -> None:
    """What it was writing may be there or not."""
    async with opened(tmp_path) as (journal, log):
        log.go.clear()
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        log.failures = [ValueError("a mistake of ours")]
        ending = asyncio.create_task(journal.end(0))
        await turns()
        log.go.set()
        with pytest.raises(Unavailable, match="a mistake of ours.*may still be stored"):
            await asyncio.wait_for(waiting, 5)
        assert await asyncio.wait_for(ending, 5) == 0
    assert warnings == [DIED]


async def test_what_a_journal_on_disk_is(tmp_path: Path) -> None:
    """It survives the process, by the log's name; who is only queued is told nothing of rows."""
    async with opened(tmp_path) as (journal, log):
        assert journal.durable
        assert journal.levels == {Ack.QUEUED, Ack.JOURNALED, Ack.COMMITTED}
        assert journal.id == log.id
        assert await journal.offer(batch(), Ack.QUEUED) == ()


async def test_who_comes_too_late_is_told_that(tmp_path: Path) -> None:
    """Also with what could never fit: another server may take it."""
    async with opened(tmp_path, limits(rows=1)) as (journal, _):
        with pytest.raises(Invalid):
            await journal.offer(batch(2), Ack.JOURNALED)
        journal.close()
        with pytest.raises(Unavailable):
            await journal.offer(batch(2), Ack.JOURNALED)


async def test_an_end_does_not_wait_for_a_writer_that_died(tmp_path: Path) -> None:
    """Nobody else will write what is left."""
    async with opened(tmp_path) as (journal, log):
        log.go.clear()
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: log.appends == 1)
        await journal.offer(batch(3), Ack.QUEUED)
        log.failures = [ValueError("a mistake of ours")]
        ending = asyncio.create_task(journal.end(60))
        await turns()
        log.go.set()
        with pytest.raises(Unavailable, match="a mistake of ours.*may still be stored"):
            await asyncio.wait_for(waiting, 5)
        assert await asyncio.wait_for(ending, 5) == 3
