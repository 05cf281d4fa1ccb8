"""Small appends that the event loop writes and somebody else syncs: when that is done, what becomes of one that
fails, and that the thread does all others."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from ingestor.journal import log_thread as log_thread_module
from ingestor.journal.files import File
from ingestor.journal.joining import Joined, join
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.log_thread import LogThread, Written
from ingestor.journal.receipts import Offer
from ingestor.model import Ack, Request
from tests.journal.contract import MANY, batch, turns, until
from tests.journal.disk_kit import Brakes
from tests.journal.forgetful_disk import Disk, Fault

LIMITS = LogLimits(bytes_max=64 * 1024**2, ample_bytes=0)


class Syncs:
    """Begins syncs that end when it is told. `takes` says whether it begins any."""

    def __init__(self) -> None:
        self.takes = True
        self.begun: list[tuple[File, asyncio.Future[None]]] = []
        self.closed = False

    def begin(self, file: File) -> asyncio.Future[None] | None:
        if not self.takes:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun.append((file, future))
        return future

    def end(self) -> None:
        """Makes the oldest."""
        file, future = self.begun.pop(0)
        file.sync()
        future.set_result(None)

    def fail(self) -> None:
        """Can't make it."""
        _, future = self.begun.pop(0)
        future.set_exception(OSError(errno.EIO, "Input/output error"))

    def close(self) -> None:
        self.closed = True


class Journal:
    """A log with its thread, at a moment that passes when it is told to. `appends` counts those of the thread."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.segments = SegmentLog.open(self.disk.boot(), LIMITS)
        self.log = Brakes(self.segments)
        self.syncs = Syncs()
        self.now_s = 1_000_000.0
        self.thread = LogThread(self.log, lambda: self.now_s, self.syncs)  # type: ignore[arg-type]
        self.position = 1

    @property
    def appends(self) -> int:
        return self.log.appends

    async def append(self, *offers: Offer) -> Written:
        """As the inlet does."""
        written = await self.thread.append(offers or [self.offer()], self.position, 0)
        self.position += len(written.joined)
        return written

    def offer(self) -> Offer:
        return Offer(batch(), Ack.JOURNALED, None, None, self.now_s)

    def stored(self) -> list[int]:
        """What the log gives."""
        return [record.position for record in self.segments.read(0, MANY, MANY)]


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    """With an entry of the thread's, which has seen how much room there is."""
    opened = Journal()
    await opened.append()
    assert opened.appends == 1
    yield opened
    opened.log.go.set()
    if not opened.syncs.closed:
        await opened.thread.close()
    assert opened.syncs.closed


async def test_it_returns_once_it_is_synced(journal: Journal) -> None:
    """And not before; the thread has nothing to do with it."""
    room_bytes, size_bytes = await journal.thread.room_bytes(), journal.segments.size_bytes
    appending = asyncio.create_task(journal.append())
    await turns(50)
    assert not appending.done()
    assert journal.stored() == [1]
    journal.syncs.end()
    written = await appending
    assert (journal.appends, journal.stored()) == (1, [1, 2])
    assert written.room_bytes == room_bytes - (journal.segments.size_bytes - size_bytes)
    assert 0 < written.took_s < 60
    assert [joined.entry.position for joined in written.joined] == [2]


async def test_what_is_committed_is_noted(journal: Journal) -> None:
    """A restart begins there, also when no entry comes any more that tells it."""
    journal.segments._hinted_at_s = 0.0  # so that a cursor comes with the entry, of what was committed before
    appending = asyncio.create_task(journal.thread.append([journal.offer()], 2, 1))
    await turns(50)
    journal.syncs.end()
    await appending
    assert journal.segments.committed_hint == 1
    await journal.thread.close()
    assert SegmentLog.open(journal.disk.boot(), LIMITS).committed_hint == 1


async def test_what_nobody_else_syncs_the_thread_does(journal: Journal) -> None:
    """It is written already."""
    journal.syncs.takes = False
    await journal.append()
    assert (journal.appends, journal.stored()) == (1, [1, 2])
    assert journal.disk.calls[-1] == "sync"


@pytest.mark.parametrize("how", ["begun", "in the thread"])
async def test_one_that_can_not_be_synced_goes_into_a_new_file(
    journal: Journal, warnings: list[str], how: str
) -> None:
    """By the thread; it is told once it is there, and the disk's failure is logged."""
    journal.syncs.takes = how == "begun"
    if how != "begun":
        journal.disk.fail([Fault("sync", 0, errno.EIO)])
    files = len(journal.disk.names)
    appending = asyncio.create_task(journal.append())
    await turns(50)
    if how == "begun":
        journal.syncs.fail()
    await appending
    assert (journal.appends, journal.stored()) == (2, [1, 2])
    assert len(journal.disk.names) == files + 1
    assert warnings == ["the journal can't be written to, and tries it again: [Errno 5] Input/output error"]
    journal.disk.lose_power()
    assert SegmentLog.open(journal.disk.boot(), LIMITS).last == 2


async def test_one_that_can_not_be_written_the_thread_writes(journal: Journal, warnings: list[str]) -> None:
    """Into the same file, where the first try is cut off."""
    journal.disk.fail([Fault("write", 0, errno.EIO)])
    await journal.append()
    assert (journal.appends, journal.stored()) == (2, [1, 2])
    assert len(warnings) == 1


async def test_one_that_is_cancelled_does_not_count(journal: Journal) -> None:
    """Its place is taken by the next, in a new file: nobody knows what was synced."""
    appending = asyncio.create_task(journal.append())
    await turns(50)
    appending.cancel()
    await asyncio.wait([appending])
    assert journal.stored() == [1]
    files = len(journal.disk.names)
    await journal.append()
    assert (journal.appends, journal.stored()) == (2, [1, 2])
    assert len(journal.disk.names) == files + 1


async def test_without_anybody_who_syncs_the_thread_does_all() -> None:
    """As on other systems."""
    journal = Journal()
    journal.thread = LogThread(journal.log, lambda: 0.0)  # type: ignore[arg-type]
    for count in (1, 2, 3):
        await journal.append()
        assert journal.appends == count
    await journal.thread.close()


async def test_many_are_for_the_thread(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number or in bytes; and an append of nothing, which tries the disk."""
    monkeypatch.setattr(log_thread_module, "_HERE_OFFERS_MAX", 2)
    for count, appends in ((3, 2), (2, 2), (0, 3)):
        await end_of(journal, *(journal.offer() for _ in range(count)), nothing=not count)
        assert journal.appends == appends
    size_bytes = journal.offer().size_bytes
    for bytes_max, appends in ((2 * size_bytes, 3), (2 * size_bytes - 1, 4)):
        monkeypatch.setattr(log_thread_module, "_HERE_BYTES_MAX", bytes_max)
        await end_of(journal, journal.offer(), journal.offer())
        assert journal.appends == appends


async def end_of(journal: Journal, *offers: Offer, nothing: bool = False) -> None:
    """An append that is synced, whoever does it."""
    doing = journal.thread.append([], journal.position, 0) if nothing else journal.append(*offers)
    appending = asyncio.ensure_future(doing)
    await turns(50)
    if journal.syncs.begun:
        journal.syncs.end()
    await appending


async def test_the_disk_is_looked_at_every_second(journal: Journal) -> None:
    """By the thread, with an append of its own; also where looking failed."""
    for passes_s, appends in ((0.9, 1), (0.2, 2), (0.9, 2), (0.1, 3)):
        journal.now_s += passes_s
        await end_of(journal)
        assert journal.appends == appends
    journal.log.room = -1
    journal.now_s += 1.0
    for appends in (4, 5):
        await end_of(journal)
        assert journal.appends == appends


async def test_a_write_that_waits_for_the_disk_is_the_last_for_a_while(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have written so much that the page cache is full: the event loop must not wait for that again."""
    monkeypatch.setattr(log_thread_module, "_LOOK_S", 100.0)
    begin = journal.segments.begin

    def slowly(records: object) -> object:
        time.sleep(0.021)
        return begin(records)  # type: ignore[arg-type]

    journal.log.begin = slowly  # type: ignore[attr-defined]
    await end_of(journal)
    assert journal.appends == 1
    del journal.log.begin
    for passes_s, appends in ((0.0, 2), (9.9, 3), (0.2, 3)):
        journal.now_s += passes_s
        await end_of(journal)
        assert journal.appends == appends


async def test_so_is_one_that_fails_then(journal: Journal, warnings: list[str]) -> None:
    """A disk that hung gave an error at last."""

    def slowly(records: object) -> object:
        time.sleep(0.021)
        raise OSError(errno.EIO, "Input/output error")

    journal.log.begin = slowly  # type: ignore[attr-defined]
    await end_of(journal)
    del journal.log.begin
    await end_of(journal)
    assert (journal.appends, len(warnings)) == (3, 1)


async def test_so_is_one_whose_sync_takes_long(journal: Journal) -> None:
    """It tells of a disk for which writes wait, too."""
    appending = asyncio.create_task(journal.append())
    await asyncio.sleep(0.11)
    journal.syncs.end()
    await appending
    await end_of(journal)
    assert journal.appends == 2


async def test_what_is_written_of_answers_counts(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused, and why, is kept with a request that has an id."""
    request = Request("", "id", b"f" * 16, 1, b"r" * 1_000)
    offer = Offer(batch(), Ack.JOURNALED, request, None, journal.now_s)
    for bytes_max, appends in ((offer.size_bytes + 1_000, 1), (offer.size_bytes + 999, 2)):
        monkeypatch.setattr(log_thread_module, "_HERE_BYTES_MAX", bytes_max)
        await end_of(journal, offer)
        assert journal.appends == appends


async def test_nothing_is_joined_for_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log has more to do than to write."""
    joins: list[str] = []

    def joined(offers: Sequence[Offer], position: int) -> list[Joined]:
        joins.append(threading.current_thread().name[:7])
        return join(offers, position)

    monkeypatch.setattr(log_thread_module, "join", joined)
    journal.segments.leap()
    journal.position = journal.segments.last + 1
    await end_of(journal)
    assert joins == ["journal"]


async def test_the_event_loop_waits_for_the_thread(journal: Journal) -> None:
    """The log is no friend of two of them: whoever gave up on a call has not ended it."""
    journal.log.looking, seen = asyncio.Event(), journal.log.looks
    looks = [asyncio.create_task(journal.thread.room_bytes()) for _ in range(2)]
    await until(lambda: journal.log.looks > seen)
    for look in looks:
        look.cancel()
    await asyncio.wait(looks)
    appending = asyncio.create_task(journal.append())
    await turns(50)
    assert journal.syncs.begun == []
    journal.log.looking.set()
    await appending
    assert journal.appends == 2
