"""The disk journal on the event loop: who is acknowledged when, and what is read next. The log
(`ingestor.journal.log`) knows files; this knows callers.

It never acknowledges a level that was not reached, and never lets what is not synced be read: then a crash
can't take what the database has, and no position is given twice.

Invariants, all on one event loop (the log is called from one thread of its own, one call after the other):
- `_offers` is what is not written yet, in order, within the queue's limits; a group of them is written and synced
  at a time, and those who come meanwhile make the next group;
- whoever changes what the log holds, or where it is read, does so under `_files` until all here is in accord with
  it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar
from uuid import UUID

from loguru import logger

from ingestor.errors import JournalProblem, Overloaded, Refusal, TooLate, Unavailable
from ingestor.journal.admission import RETRY_AFTER_S, Admission, QueueLimits
from ingestor.journal.backlog import Backlog, Marks
from ingestor.journal.commits import Commits
from ingestor.journal.joining import Joined, join
from ingestor.journal.log import JournalFailed, JournalFull, Record, SegmentLog
from ingestor.journal.receipts import Offer, Receipt
from ingestor.journal.request_ids import HELD_MAX, RequestIds
from ingestor.journal.sleep import Reader
from ingestor.model import Ack, DeadRow, Entry, MetricBatch, Outcome, Placed, Request, Taken
from ingestor.model.delivery import NOTHING

# What is written and synced at once.
_GROUP_BYTES_MAX = 8 * 1024**2
# What is read from disk at once.
_READ_BYTES_MAX = 8 * 1024**2
# How long the log may take what is committed for pending, while nobody needs the room.
_RELEASE_S = 0.1
# How long nothing is tried after the disk has failed; and so often it is looked whether a full one has room again.
_REST_S = 1.0

# What a record takes on disk beside its rows.
_FRAME_BYTES = 1_024

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")


class DiskJournal:
    """The queue on an open log. `resume` it first, and `end` it at last."""

    levels = frozenset(Ack)
    default_level = Ack.JOURNALED
    durable = True

    def __init__(
        self,
        log: SegmentLog,
        limits: QueueLimits,
        requests: RequestIds | None = None,
        *,
        on_taken: Callable[[int], object] = lambda rows: None,
        on_synced: Callable[[float], object] = lambda seconds: None,
        on_lost: Callable[[int], object] = lambda rows: None,
        outage: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_taken` hears of each batch that is taken, by its number of rows, `on_synced` how long a write took,
        `on_lost` of rows that the disk does not give back; `outage` says why the database takes nothing, if so."""
        self.id = log.id
        self.log = log
        self._limits = limits
        self._requests = requests or RequestIds()
        self._on_taken = on_taken
        self._on_synced = on_synced
        self._on_lost = on_lost
        self._outage = outage
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._admission: Admission[Offer] = Admission(
            limits, self._has_room, self._take, self._refusal, self._wake
        )
        self._reader = Reader()
        self._offers: deque[Offer] = deque()
        self._offered, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._unwritten_rows = self._unwritten_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._ending = False
        self._room_bytes = 0
        self._backlog = Backlog(log.last)
        # What was read at once and is not settled yet, oldest first.
        self._read: deque[Sequence[Taken]] = deque()
        self._commits = Commits(self._requests, self._urge)
        self._committed = self._released = self._urgent = NOTHING
        # Rows that are durable and not settled, and those that are acknowledged although they are not written.
        self._durable_rows = self._queued_rows = 0
        self._files = asyncio.Lock()
        self._hurried = False

    @property
    def waiting_rows(self) -> int:
        """Durable rows that nobody has read yet."""
        return self._backlog.waiting_rows

    @property
    def held_rows(self) -> int:
        """Acknowledged rows that are not settled."""
        return self._durable_rows + self._queued_rows

    @property
    def held_entries(self) -> int:
        """What lies in memory, as a number of requests at the least."""
        return len(self._offers) + self._backlog.entries + sum(map(len, self._read))

    @property
    def held_bytes(self) -> int:
        """The memory that waiting rows take."""
        return self._unwritten_bytes + self._backlog.size_bytes

    @property
    def unwritten_rows(self) -> int:
        """Rows that are acknowledged at most as queued, and are in no file."""
        return self._unwritten_rows

    @property
    def waiting_offers(self) -> int:
        """Offers that wait for room."""
        return self._admission.waiting

    @property
    def size_bytes(self) -> int:
        """What the log takes on disk."""
        return self.log.size_bytes

    @property
    def room_bytes(self) -> int:
        """What the log may still take."""
        return self._room_bytes

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at the moment."""
        return self._problem

    @property
    def pressed(self) -> bool:
        """Whether there is no point in waiting for a fuller batch: somebody waits for room, or was refused
        since rows were last settled, or waits for the commit of what is unread, or `hurry` was called."""
        return self._urgent > self._backlog.read_to or self._admission.pressed or self._hurried

    @property
    def full(self) -> bool:
        """Whether the next offer would most likely wait or be refused."""
        return self._admission.pressed or self._problem is not None or self._room_bytes <= 0

    @property
    def closed(self) -> bool:
        """Whether nothing more will come to be read."""
        return self._admission.closed and not self._unwritten_rows

    def age_s(self) -> float:
        """Seconds that the oldest unread entry has waited; 0 when there is none."""
        return self._backlog.age_s(self._clock())

    def oldest_age_s(self) -> float:
        """Seconds since the oldest entry that is not settled was taken; 0 when there is none."""
        oldest_s = self._read[0][0].taken_at_s if self._read else self._backlog.oldest_s()
        if oldest_s is None and self._offers and self._offers[0].ack is Ack.QUEUED:
            oldest_s = self._offers[0].came_at_s
        return 0.0 if oldest_s is None else self._clock() - oldest_s

    def hurry(self) -> None:
        """Nobody should wait for fuller batches any more."""
        self._hurried = True
        self._wake()

    async def resume(self) -> int:
        """Takes offers from now on. What the log holds and is not known to be committed is read next; returns
        how many rows that are. Raises JournalProblem."""
        await self.rewind(self.log.committed_hint)
        self._writer = asyncio.create_task(self._write(), name="journal-writer")
        self._writer.add_done_callback(self._writer_ended)
        return self._durable_rows

    async def leap(self) -> None:
        """Goes on without the database having said what it has: at positions that it can't have, whatever this log
        may have lost. Call it before the first offer."""
        async with self._files:
            await self._aside(self.log.leap)
            self._backlog.leapt(self.log.last)

    async def bind(self, database: UUID) -> None:
        """What is in the log, and what will be, is for this database. Raises JournalProblem."""
        async with self._files:
            with self._readable():
                await self._aside(self.log.bind, database)

    async def end(self, timeout_s: float) -> int:
        """Writes what can still be written, for `timeout_s` seconds at most, and closes the log. Who still waits is
        told. Returns how many rows, acknowledged as queued, are lost. Again it does nothing."""
        self.close()
        if self._ending:
            return self._queued_rows
        self._ending = True
        if self._writer is not None and not self._writer.done():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()
            except TimeoutError:
                pass
            self._writer.cancel()
            await asyncio.wait([self._writer])
        if self._releasing is not None:
            await asyncio.wait([self._releasing])
        await self._aside(self.log.close)
        self._thread.shutdown()
        lost = self._queued_rows
        self._abandon(TooLate("the server stopped before this was written, but it may still be stored"))
        return lost

    async def offer(self, batch: MetricBatch, ack: Ack, request: Request | None = None) -> Sequence[DeadRow]:
        """Takes the batch whole; returns once `ack` is reached, with the rows that the database refused (COMMITTED
        alone can know of any).

        Raises Invalid when it could never fit, Overloaded or Unavailable when there was no room in time or the disk
        failed: then nothing was taken. Cancelled while it waits for room, it takes nothing, unless room came in the
        same moment; later, the rows are stored although nobody was told.
        """
        if not self._admission.closed:
            self._limits.check(batch.rows, batch.size_bytes)
        unheard = ack is Ack.QUEUED and request is None
        receipt = None if unheard else Receipt(awaited=ack is Ack.COMMITTED)
        await self._admission.enter(Offer(batch, ack, request, receipt, self._clock()))
        if receipt is None or ack is Ack.QUEUED:
            return ()
        del batch
        return await receipt.reached(ack)

    async def wait(self, rows: int, timeout_s: float | None) -> None:
        """Returns when `rows` wait to be read, or some and the queue is pressed, when it is closed, or after
        `timeout_s` seconds."""
        if self.waiting_rows >= rows or (self.pressed and self.waiting_rows) or self.closed:
            return
        await self._reader.wait(rows, timeout_s)

    async def read(self, rows_max: int) -> list[Entry]:
        """The oldest entries, whole, until at least `rows_max` rows are read or none are left; fewer when they are
        many bytes. Raises JournalProblem when the disk gives none; then the next call tries again."""
        entries = self._backlog.take(rows_max)
        if not entries and self._backlog.spilled:
            async with self._files:
                entries = await self._from_disk(rows_max)
        if entries:
            self._read.append([entry.taken for entry in entries])
        return entries

    async def settle(self, entries: Sequence[Entry | Taken], outcome: Outcome) -> None:
        """These entries, those that were read first and are not settled yet, are stored. `outcome` counts their
        rows from the first of them."""
        read = self._read.popleft()
        assert read[-1].position == entries[-1].position
        self._durable_rows -= sum(entry.rows for entry in read)
        self._committed = entries[-1].position
        self._commits.settled(entries, outcome)
        self._admission.room_made()
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release(), name="journal-release")

    async def rewind(self, position: int) -> int:
        """The database has what stands up to `position`, and nothing behind: that is read next, whatever was read
        before. Returns by how many rows more are held than before (negative: so many turned out to be stored).
        Raises JournalProblem; then what is read next is what it was."""
        async with self._files:
            if position < self._committed:
                # Also when it can't be read now.
                self._requests.forget_recent()
                self._committed = position
            with self._readable():
                survey = await self._aside(self._go_back, position)
            self._read.clear()
            self._committed = position
            self._commits.restart(position, survey.placed)
            self._backlog.restart(position, survey.rows, survey.marks)
            change = survey.rows - self._durable_rows
            self._durable_rows = survey.rows
        self._admission.room_made()
        self._reader.arrived(self.waiting_rows)
        return change

    def close(self) -> None:
        """Refuses offers from now on, also those that wait; what is in can still be read."""
        self._admission.close()
        self._wake()

    def _has_room(self, offer: Offer) -> bool:
        return (
            self._problem is None
            and self._unwritten_rows + offer.batch.rows <= self._limits.rows
            and self._unwritten_bytes + offer.size_bytes <= self._limits.bytes
            and self._unwritten_bytes + offer.size_bytes + _FRAME_BYTES <= self._room_bytes
        )

    def _take(self, offer: Offer) -> None:
        self._offers.append(offer)
        self._unwritten_rows += offer.batch.rows
        self._unwritten_bytes += offer.size_bytes
        if offer.ack is Ack.QUEUED:
            self._queued_rows += offer.batch.rows
            self._on_taken(offer.batch.rows)
        if offer.request is not None and offer.receipt is not None:
            # What is acknowledged as queued is kept even when the disk fails; other offers come to nothing then.
            least = Ack.QUEUED if offer.ack is Ack.QUEUED else Ack.JOURNALED
            self._requests.hold(offer.request, offer.receipt, self._urge, least)
        self._offered.set()
        self._idle.clear()

    async def _write(self) -> None:
        """Group after group, for as long as the journal lives."""
        while True:
            self._rest()
            if not await self._offered_within(_REST_S):
                await self._look_for_room()
                continue
            await asyncio.sleep(0)  # those who come in the same turn of the loop share the sync
            self._offered.clear()
            # An empty group only tries the disk: nobody can come in before it is known to be well again.
            while (group := self._next_group()) or self._problem is not None:
                async with self._files:
                    await self._append(group)
                if self._problem is not None:
                    self._rest()
                    await asyncio.sleep(_REST_S)

    def _rest(self) -> None:
        if not self._offers:
            self._idle.set()

    async def _offered_within(self, timeout_s: float) -> bool:
        if self._offered.is_set():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._offered.wait()
        except TimeoutError:
            return False
        return True

    async def _look_for_room(self) -> None:
        """Others fill the file system, and make room on it."""
        async with self._files:
            room_bytes = await self._aside(self._room_now)
        before_bytes, self._room_bytes = self._room_bytes, room_bytes
        if room_bytes > before_bytes:
            self._admission.room_made()

    def _writer_ended(self, task: asyncio.Task[None]) -> None:
        """Not before `end`, unless by our own mistake. Then nobody can know what is written: what is not
        acknowledged comes to nothing, and the next start reads what there is."""
        if self._ending and (task.cancelled() or task.exception() is None):
            return
        error = None if task.cancelled() else task.exception()
        self._problem = f"it has failed in a way that was not foreseen ({error!r}): restart the server"
        logger.opt(exception=error).critical("the journal's writer died: nothing is taken any more")
        self._unwritable(self._problem)
        self._abandon(Unavailable(f"{self._problem}: it may still be stored", RETRY_AFTER_S))

    def _next_group(self) -> list[Offer]:
        group: list[Offer] = []
        size = 0
        while self._offers and size < _GROUP_BYTES_MAX:
            offer = self._offers.popleft()
            size += offer.size_bytes
            group.append(offer)
        return group

    async def _append(self, group: list[Offer]) -> None:
        try:
            committed = self._committed
            written = await self._aside(self._append_aside, group, self._backlog.last + 1, committed)
        except (JournalFull, JournalFailed) as error:
            self._offers.extendleft(reversed(group))
            self._unwritable(str(error))
            return
        except BaseException:  # cancelled, or our own mistake: it is raised again, and nothing is forgotten
            self._offers.extendleft(reversed(group))
            raise
        if self._problem is not None:
            logger.info("the journal can be written again")
            self._problem = None
        self._room_bytes, self._released = written.room_bytes, committed
        self._on_synced(written.took_s)
        self._unwritten_rows -= sum(offer.batch.rows for offer in group)
        self._unwritten_bytes -= sum(offer.size_bytes for offer in group)
        for joined in written.joined:
            self._durable(joined)
        self._admission.room_made()
        self._reader.arrived(self.waiting_rows)
        if self.closed or self._urgent > self._backlog.read_to:
            self._wake()

    def _durable(self, joined: Joined) -> None:
        entry = joined.entry
        self._durable_rows += entry.batch.rows
        self._backlog.add(entry)
        for first, offer in joined.members:
            if offer.ack is Ack.QUEUED:
                self._queued_rows -= offer.batch.rows
            else:
                self._on_taken(offer.batch.rows)
            if offer.receipt is not None:
                offer.receipt.advance(Ack.JOURNALED)
                self._commits.add(entry.position, first, offer)
            if offer.receipt is not None and offer.receipt.awaited:
                self._urgent = entry.position

    def _unwritable(self, reason: str) -> None:
        """Nothing of what is offered gets into the log. Who was acknowledged already stays, the others are told."""
        if self._problem is None:
            logger.error("the journal can't be written, so requests are refused: {}", reason)
        self._problem = reason
        offers, self._offers = self._offers, deque()
        for offer in offers:
            if offer.ack is Ack.QUEUED:
                self._offers.append(offer)
                continue
            self._unwritten_rows -= offer.batch.rows
            self._unwritten_bytes -= offer.size_bytes
            if offer.request is not None:
                self._requests.drop(offer.request)
            if offer.receipt is not None:
                offer.receipt.fail(self._refusal())

    def _abandon(self, refusal: Refusal) -> None:
        """Nobody will write what is left."""
        while self._offers:
            offer = self._offers.popleft()
            if offer.request is not None:
                self._requests.drop(offer.request)
            if offer.receipt is not None:
                offer.receipt.fail(refusal)

    async def _from_disk(self, rows_max: int) -> list[Entry]:
        after = self._backlog.read_to
        with self._readable():
            records = await self._aside(self.log.read, after, rows_max, _READ_BYTES_MAX)
        now_s, wall_s = self._clock(), time.time()
        entries = [
            Entry(each.position, each.batch, _monotonic_s(each.taken_at_us, now_s, wall_s), each.requests)
            for each in records
        ]
        if missing := self._backlog.read(entries):
            # Whatever happened to the disk; the log has said what.
            self._durable_rows -= missing
            self._on_lost(missing)
            if not entries:
                in_flight = self._read[-1][-1].position if self._read else self._committed
                self._commits.lost(in_flight, self._backlog.last)
        return entries

    async def _release(self) -> None:
        """Lets the log go on without what is committed; the next write does that by the way, if one comes soon."""
        if not self._admission.pressed:
            await asyncio.sleep(_RELEASE_S)
        while self._committed != self._released:
            async with self._files:
                position = self._committed  # a rewind may have been first
                self._room_bytes = await self._aside(self._release_aside, position)
            self._released = position
            self._admission.room_made()

    async def _aside(
        self, work: Callable[ParamsT, ResultT], *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> ResultT:
        """In the log's thread."""
        call = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _append_aside(self, group: list[Offer], position: int, committed: int) -> _Written:
        wall_us = time.time_ns() // 1_000
        now_s = self._clock()
        joined = join(group, position)
        records = [
            Record(
                each.entry.position,
                each.entry.batch,
                wall_us - int((now_s - each.entry.taken_at_s) * 1e6),
                each.entry.requests,
            )
            for each in joined
        ]
        began_s = time.perf_counter()
        self.log.append(records)
        took_s = time.perf_counter() - began_s
        self.log.committed(committed)
        return _Written(joined, self._room_now(), took_s)

    def _release_aside(self, position: int) -> int:
        self.log.committed(position)
        return self._room_now()

    def _room_now(self) -> int:
        try:
            return self.log.room_bytes()
        except OSError:
            return self._room_bytes  # writing tells more

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Raises JournalProblem for what the disk raises."""
        try:
            yield
        except OSError as error:
            msg = f"the journal can't be read: {(error.strerror or str(error)).lower()}"
            raise JournalProblem(msg) from error

    def _go_back(self, position: int) -> _Survey:
        """The log at this place, and what lies behind it."""
        survey = _Survey()
        if position > self.log.last:
            logger.warning(
                "the database has entries up to {} of this journal, which ends at {}",
                position,
                self.log.last,
            )
            self.log.skip_to(position)
        else:
            # Told first, whether it can be read now or not: the log must not let go of what is to be stored again.
            if gap := self.log.rewound(position):
                logger.error(
                    "entries {} to {} are not in the database, and not in the journal any more", *gap
                )
            now_s, wall_s = self._clock(), time.time()
            for summary in self.log.pending(position):
                survey.rows += summary.rows
                survey.marks.add(summary.position, _monotonic_s(summary.taken_at_us, now_s, wall_s))
                if len(survey.placed) < HELD_MAX:
                    survey.placed.extend((summary.position, placed) for placed in summary.requests)
        self._room_bytes = self._room_now()
        return survey

    def _urge(self) -> None:
        """Somebody waits for the commit of something that is here."""
        self._urgent = self._backlog.last
        self._wake()

    def _wake(self) -> None:
        self._reader.wake()

    def _refusal(self) -> Refusal:
        what = self._problem or (
            f"the journal is full ({self.log.size_bytes} bytes; {self.held_rows} metrics wait for the database)"
            if self._unwritten_rows < self._limits.rows // 2
            else f"the queue before the journal is full ({self._unwritten_rows} metrics)"
        )
        if self._outage() is not None:
            return Unavailable(f"{what}, and the database takes nothing: nothing was taken", RETRY_AFTER_S)
        return Overloaded(f"{what}: nothing was taken", RETRY_AFTER_S)


class _Written(NamedTuple):
    joined: list[Joined]
    room_bytes: int
    took_s: float


class _Survey:
    """What lies behind a place of the log."""

    def __init__(self) -> None:
        self.rows = 0
        self.marks = Marks()
        self.placed: list[tuple[int, Placed]] = []


def _monotonic_s(taken_at_us: int, now_s: float, wall_s: float) -> float:
    """A time of the calendar as one of the monotonic clock, which is at `now_s` when the calendar's is at
    `wall_s`; never in the future."""
    return now_s - max(0.0, wall_s - taken_at_us / 1e6)
