"""The log as the event loop uses it, by itself: one call after the other, and times that mean the same moment."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from ingestor.errors import JournalProblem
from ingestor.journal import log_thread as log_thread_module
from ingestor.journal.log import SegmentLog
from ingestor.journal.log_thread import LogThread
from ingestor.journal.receipts import Offer
from ingestor.journal.records import Record
from ingestor.model import Ack, MetricBatch, Request, Row
from ingestor.model.delivery import Placed
from tests.journal.contract import MANY, batch, until
from tests.journal.disk_kit import Brakes
from tests.journal.forgetful_disk import Disk
from tests.journal.segment_files import ONE_EACH, record

NOW_S = 1_000_000.0
FAR_US = 1 << 60


@pytest.fixture
def segments() -> SegmentLog:
    """A log with a file for each append, which keeps nothing that is committed."""
    return SegmentLog.open(Disk().boot(), ONE_EACH)


@pytest.fixture
async def log(segments: SegmentLog) -> Brakes:
    """It, as the thread has it."""
    return Brakes(segments)


@pytest.fixture
async def thread(log: Brakes) -> AsyncIterator[LogThread]:
    """That log's thread, at a moment that doesn't pass."""
    opened = LogThread(log, lambda: NOW_S)  # type: ignore[arg-type]
    yield opened
    log.go.set()
    await opened.close()


def threads() -> int:
    """How many there are for logs."""
    return sum(each.name.startswith("journal") for each in threading.enumerate())


def offer(taken_at_s: float = NOW_S) -> Offer:
    return Offer(batch(), Ack.JOURNALED, None, None, taken_at_s)


async def test_no_two_calls_are_made_at_once(log: Brakes) -> None:
    """The log is no friend of two threads. When it is closed its thread is gone."""
    before = threads()
    thread = LogThread(log, lambda: NOW_S)  # type: ignore[arg-type]
    log.go.clear()
    writing = asyncio.create_task(thread.append([offer()], 1, 0))
    await until(lambda: log.appends == 1)
    looking = asyncio.create_task(thread.room_bytes())
    await asyncio.sleep(0)
    assert (threads(), log.looks) == (before + 1, 0)
    log.go.set()
    await asyncio.gather(writing, looking)
    await thread.close()
    assert threads() == before


async def test_what_was_never_said_to_be_free_is_not(log: Brakes, thread: LogThread) -> None:
    """Afterwards what was said last."""
    log.room = -1
    assert await thread.room_bytes() == 0
    log.room = 5
    assert await thread.room_bytes() == 5
    log.room = -1
    assert await thread.room_bytes() == 5


async def test_when_an_offer_was_taken_is_known_to_the_microsecond(log: Brakes, thread: LogThread) -> None:
    """However long it has waited."""
    before_us = time.time_ns() // 1_000
    await thread.append([offer(taken_at_s=0.0)], 1, 0)
    [found] = log.read(0, MANY, MANY)
    assert before_us <= found.taken_at_us + NOW_S * 1e6 <= time.time_ns() // 1_000


async def test_nothing_was_taken_in_the_future(segments: SegmentLog, thread: LogThread) -> None:
    """Although the calendar's clock went back since."""
    segments.append([Record(1, MetricBatch.of_row(Row(0, "s", "m", 1.0), {}), FAR_US)])
    [entry] = await thread.read(0, MANY)
    assert entry.taken_at_s == NOW_S
    await thread.append([offer()], 2, 0)
    [entry] = await thread.read(1, MANY)
    assert NOW_S - 60.0 < entry.taken_at_s <= NOW_S


async def test_what_a_database_lacks_or_has_more_is_told(
    segments: SegmentLog, thread: LogThread, warnings: list[str]
) -> None:
    """By its positions."""
    for position in (1, 2, 3):
        segments.append([record(position)])
    segments.committed(2)
    assert (await thread.go_to(2)).rows == 1
    assert warnings == []
    assert (await thread.go_to(0)).rows == 1
    assert warnings == ["entries 1 to 2 are not in the database, and not in the journal any more"]
    assert (await thread.go_to(9)).rows == 0
    assert warnings[1:] == ["the database has entries up to 9 of this journal, which ends at 3"]
    assert segments.last == 9


async def test_so_many_requests_are_looked_for_and_no_more(
    segments: SegmentLog, thread: LogThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded; the database knows of the others."""
    monkeypatch.setattr(log_thread_module, "HELD_MAX", 2)
    for position in (1, 2, 3):
        placed = Placed(0, 1, Request("", str(position), b"f" * 16, 1))
        segments.append([Record(position, batch(), 0, (placed,))])
    behind = await thread.go_to(0)
    assert ([position for position, _ in behind.placed], behind.rows) == ([1, 2], 3)


async def test_an_error_without_a_number_is_told_in_its_words(
    log: Brakes, thread: LogThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are such, of no system call."""

    def refuse(*_: int) -> None:
        raise OSError("The disk is elsewhere")

    monkeypatch.setattr(log, "read", refuse)
    with pytest.raises(JournalProblem, match="can't be read: the disk is elsewhere"):
        await thread.read(0, MANY)
