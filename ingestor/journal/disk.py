"""The disk journal on the event loop: who is acknowledged when, and what is read next. The log
(`ingestor.journal.log`) knows files; this knows callers.

It never acknowledges a level that was not reached, and never lets what is not synced be read: then a crash
can't take what the database has, and no position is given twice.

Its parts, all on one event loop:
- `books`: what is held, where each row is on its way, and what there is room for. Its invariants are the journal's;
- `inlet`: takes offers, writes and syncs them in groups, and acknowledges;
- `outlet`: gives entries out, lets go of what is settled, goes back when the database has;
- `log_thread`: calls the log, one call after the other, in one thread but for small appends, which the kernel syncs
  (`kernel_sync`); has the lock under which log and books are brought into accord.

Byte layout and recovery are the log's: `ingestor.journal.frames` and `ingestor.journal.recovery`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from uuid import UUID

from ingestor.errors import TooLate
from ingestor.journal.admission import QueueLimits
from ingestor.journal.books import Books
from ingestor.journal.commits import Commits
from ingestor.journal.inlet import Inlet
from ingestor.journal.log import SegmentLog
from ingestor.journal.log_thread import LogThread, Syncs
from ingestor.journal.outlet import Outlet
from ingestor.journal.receipts import Offer, Receipt
from ingestor.journal.request_ids import RequestIds
from ingestor.journal.sleep import Reader
from ingestor.model import Ack, DeadRow, Entry, MetricBatch, Outcome, Request, Taken

_KEPT = (
    "the server stopped before the commit was seen: what was sent is kept in the journal, and the next start stores"
    " it at the latest: sent again with the same request_id it is stored once, without one twice"
)


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
        syncs: Syncs | None = None,
    ) -> None:
        """`on_taken` hears of each batch that is taken, by its number of rows, `on_synced` how long a write took,
        `on_lost` of rows that the disk does not give back; `outage` says why the database takes nothing, if so;
        `syncs` spares small writes the thread."""
        requests = requests or RequestIds()
        self.id = log.id
        self.log = log
        self._limits = limits
        self._clock = clock
        self._thread = LogThread(log, clock, syncs)
        self._books = Books(limits, log.last)
        self._reader = Reader()
        self._commits = commits = Commits(requests, self._urge)
        self._inlet = Inlet(
            self._thread,
            self._books,
            limits=limits,
            requests=requests,
            commits=commits,
            reader=self._reader,
            urge=self._urge,
            on_taken=on_taken,
            on_synced=on_synced,
            outage=outage,
        )
        self._admission = self._inlet.admission
        self._outlet = Outlet(
            self._thread,
            self._books,
            requests=requests,
            commits=commits,
            admission=self._admission,
            reader=self._reader,
            on_lost=on_lost,
        )
        self._hurried = self._ended = False

    @property
    def waiting_rows(self) -> int:
        """Durable rows that nobody has read yet."""
        return self._books.backlog.waiting_rows

    @property
    def held_rows(self) -> int:
        """Acknowledged rows that are not settled."""
        return self._books.held_rows

    @property
    def held_entries(self) -> int:
        """What lies in memory, as a number of requests at the least."""
        return self._books.held_entries

    @property
    def held_bytes(self) -> int:
        """The memory that waiting rows take."""
        return self._books.held_bytes

    @property
    def unwritten_rows(self) -> int:
        """Rows that are acknowledged at most as queued, and are in no file."""
        return self._books.unwritten_rows

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
        return self._books.room_bytes

    @property
    def problem(self) -> str | None:
        """Why nothing can be written at the moment."""
        return self._books.problem

    @property
    def pressed(self) -> bool:
        """Whether there is no point in waiting for a fuller batch: somebody waits for room, or was refused
        since rows were last settled, or waits for the commit of what is unread, or `hurry` was called."""
        return self._books.urged or self._admission.pressed or self._hurried

    @property
    def full(self) -> bool:
        """Whether the next offer would most likely wait or be refused."""
        return self._admission.pressed or self.problem is not None or self.room_bytes <= 0

    @property
    def closed(self) -> bool:
        """Whether nothing more will come to be read."""
        return self._inlet.closed

    def age_s(self) -> float:
        """Seconds that the oldest unread entry has waited; 0 when there is none."""
        return self._books.backlog.age_s(self._clock())

    def oldest_age_s(self) -> float:
        """Seconds since the oldest entry that is not settled was taken; 0 when there is none."""
        oldest_s = self._books.oldest_s()
        return 0.0 if oldest_s is None else self._clock() - oldest_s

    def hurry(self) -> None:
        """Nobody should wait for fuller batches any more."""
        self._hurried = True
        self._reader.wake()

    def give_up_commits(self) -> None:
        """The server stops: who waits for a commit, or for the disk, or comes to, hears TooLate, which says whether
        it is kept. All of it is written, and can be read and settled, as before. Who waits for room is refused."""
        self._commits.abandon(TooLate(_KEPT))
        self._inlet.give_up_waiting()

    async def resume(self) -> int:
        """Takes offers from now on. What the log holds and is not known to be committed is read next; returns
        how many rows that are. Raises JournalProblem."""
        await self.rewind(self.log.committed_hint)
        self._inlet.start()
        return self._books.durable_rows

    async def leap(self) -> None:
        """Goes on without the database having said what it has: at positions that it can't have, whatever this log
        may have lost. Call it before the first offer."""
        async with self._thread.changing:
            self._books.backlog.leapt(await self._thread.leap())

    async def bind(self, database: UUID) -> None:
        """What is in the log, and what will be, is for this database. Raises JournalProblem."""
        async with self._thread.changing:
            await self._thread.bind(database)

    async def end(self, timeout_s: float) -> int:
        """Writes what can still be written, for `timeout_s` seconds at most, and closes the log. Who still waits is
        told. Returns how many rows, acknowledged as queued, are lost. Again it does nothing."""
        self.close()
        if self._ended:
            return self._books.queued_rows
        self._ended = True
        await self._inlet.stop(timeout_s)
        await self._outlet.stop()
        await self._thread.close()
        self._inlet.abandon()
        self.give_up_commits()
        return self._books.queued_rows

    async def offer(self, batch: MetricBatch, ack: Ack, request: Request | None = None) -> Sequence[DeadRow]:
        """Takes the batch whole; returns once `ack` is reached, with the rows that the database refused (COMMITTED
        alone can know of any).

        Raises Invalid when it could never fit, Overloaded or Unavailable when there was no room in time or the disk
        failed: then nothing was taken. Raises TooLate when the journal ends first: then it may be kept. Cancelled
        while it waits for room, it takes nothing, unless room came in the same moment; later, the rows are stored
        although nobody was told.
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
        return await self._outlet.read(rows_max)

    async def settle(self, entries: Sequence[Entry | Taken], outcome: Outcome) -> None:
        """These entries, those that were read first and are not settled yet, are stored. `outcome` counts their
        rows from the first of them."""
        self._outlet.settle(entries, outcome)

    async def rewind(self, position: int) -> int:
        """The database has what stands up to `position`, and nothing behind: that is read next, whatever was read
        before. Returns by how many rows more are held than before (negative: so many turned out to be stored).
        Raises JournalProblem; then what is read next is what it was."""
        return await self._outlet.rewind(position)

    def close(self) -> None:
        """Refuses offers from now on, also those that wait; what is in can still be read."""
        self._admission.close()
        self._reader.wake()

    def _urge(self) -> None:
        """Somebody waits for the commit of something that is here."""
        self._books.urgent = self._books.backlog.last
        self._reader.wake()
