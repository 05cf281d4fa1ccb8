"""The bounded queue between those who are acknowledged and the one who stores: the first design's channel.

It never takes half a request, never forgets what it took before `settle` says that it is stored, and never
grows past its bounds. What it holds is gone when the process dies.

Invariants, all on one event loop:
- rows and bytes in `_waiting` and in flight together stay within the limits;
- entries leave in the order in which they were taken (positions increase by one, from 1);
- an offer that ends in an error took nothing, unless it waited for a commit;
- while somebody waits for room nobody who comes later gets in (no starvation of large requests).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

from ingestor.errors import Overloaded, Refusal, TooLate
from ingestor.journal.admission import RETRY_AFTER_S, Admission, QueueLimits
from ingestor.journal.commits import Commits
from ingestor.journal.receipts import Offer, Receipt
from ingestor.journal.request_ids import RequestIds
from ingestor.journal.sleep import Reader
from ingestor.model import Ack, DeadRow, Entry, MetricBatch, Outcome, Placed, Request, Taken
from ingestor.model.delivery import NOTHING

# Taking them out, and letting go of them later, takes some 7 ms each.
_ENTRIES_READ_MAX = 50_000

_UNSEEN = (
    "the server stopped before the commit was seen, but it may still be stored: sent again with the same request_id"
    " it is stored once, without one perhaps twice"
)


class MemoryJournal:
    """The queue. Offers come from many tasks, the calls of the one who stores from one."""

    levels = frozenset({Ack.QUEUED, Ack.COMMITTED})
    default_level = Ack.QUEUED
    durable = False

    def __init__(
        self,
        limits: QueueLimits,
        requests: RequestIds | None = None,
        *,
        on_taken: Callable[[int], object] = lambda rows: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_taken` hears of each batch that is taken, by its number of rows."""
        self.id: UUID = uuid4()
        self._limits = limits
        self._requests = requests or RequestIds()
        self._on_taken = on_taken
        self._clock = clock
        self._admission: Admission[Offer] = Admission(
            limits, self._has_room, self._take, self._full, self._wake
        )
        self._reader = Reader()
        self._entries: deque[Entry] = deque()
        # What was read at once and is not settled yet, oldest first.
        self._read: deque[list[Entry]] = deque()
        self._commits = Commits(self._requests, self._urge)
        self._position = NOTHING
        self._urgent = NOTHING
        self._waiting_rows = self._held_rows = self._held_bytes = 0
        self._hurried = False

    @property
    def waiting_rows(self) -> int:
        """Rows that nobody has read yet."""
        return self._waiting_rows

    @property
    def held_rows(self) -> int:
        """Rows that count against the bound: waiting, or read and not settled."""
        return self._held_rows

    @property
    def held_entries(self) -> int:
        """Entries that wait, or are read and not settled."""
        return len(self._entries) + sum(map(len, self._read))

    @property
    def held_bytes(self) -> int:
        """The memory that those rows take."""
        return self._held_bytes

    @property
    def waiting_offers(self) -> int:
        """Offers that wait for room."""
        return self._admission.waiting

    @property
    def pressed(self) -> bool:
        """Whether there is no point in waiting for a fuller batch: somebody waits for room, or was refused
        since rows were last settled, or waits for the commit of what is unread, or `hurry` was called."""
        urgent = bool(self._entries) and self._entries[0].position <= self._urgent
        return urgent or self._admission.pressed or self._hurried

    @property
    def full(self) -> bool:
        """Whether the next offer would most likely wait or be refused."""
        return self._admission.pressed or self._held_rows >= self._limits.rows

    @property
    def closed(self) -> bool:
        """Whether no more offers are taken."""
        return self._admission.closed

    def age_s(self) -> float:
        """Seconds that the oldest unread entry has waited; 0 when there is none."""
        return self._clock() - self._entries[0].taken_at_s if self._entries else 0.0

    def oldest_age_s(self) -> float:
        """Seconds since the oldest entry that is not settled was taken; 0 when there is none."""
        return self._clock() - self._read[0][0].taken_at_s if self._read else self.age_s()

    def hurry(self) -> None:
        """Nobody should wait for fuller batches any more."""
        self._hurried = True
        self._wake()

    def give_up_commits(self) -> None:
        """The server stops: who waits for a commit, or comes to, hears TooLate, and who waits for room is
        refused. What is here can be read and settled as before."""
        self._commits.abandon(TooLate(_UNSEEN))
        self._admission.give_up_waiting()

    async def offer(self, batch: MetricBatch, ack: Ack, request: Request | None = None) -> Sequence[DeadRow]:
        """Takes the batch whole; returns once `ack` is reached, with the rows that the database refused (COMMITTED
        alone can know of any).

        Raises Invalid when it could never fit, Overloaded when there was no room in time, Unavailable after
        `close`. Cancelled while it waits for room, it takes nothing, unless room came in the same moment: then the
        rows are stored although nobody was told.
        """
        if not self.closed:
            self._limits.check(batch.rows, batch.size_bytes)
        committed = ack is Ack.COMMITTED
        receipt = Receipt(awaited=committed) if committed or request is not None else None
        await self._admission.enter(Offer(batch, ack, request, receipt, self._clock()))
        if receipt is None or ack is Ack.QUEUED:
            return ()
        del batch
        return await receipt.reached(ack)

    async def wait(self, rows: int, timeout_s: float | None) -> None:
        """Returns when `rows` wait to be read, or some and the queue is pressed, when it is closed, or after
        `timeout_s` seconds."""
        if self._waiting_rows >= rows or (self.pressed and self._entries) or self.closed:
            return
        await self._reader.wait(rows, timeout_s)

    async def read(self, rows_max: int) -> list[Entry]:
        """The oldest entries, whole, until at least `rows_max` rows are read or none are left; not so many single
        rows that the event loop would stand still."""
        taken: list[Entry] = []
        rows = 0
        while self._entries and rows < rows_max and len(taken) < _ENTRIES_READ_MAX:
            entry = self._entries.popleft()
            rows += entry.batch.rows
            taken.append(entry)
        self._waiting_rows -= rows
        if taken:
            self._read.append(taken)
        return taken

    async def settle(self, entries: Sequence[Entry | Taken], outcome: Outcome) -> None:
        """These entries, those that were read first and are not settled yet, are stored: their room is free again.
        `outcome` counts their rows from the first of them."""
        read = self._read.popleft()
        assert read[-1].position == entries[-1].position
        self._free(read)
        self._commits.settled(entries, outcome)
        self._admission.room_made()

    async def rewind(self, position: int) -> int:
        """The database has what stands up to `position`, and nothing behind: what was read and lies there is
        read again (of what was settled nothing is left). Returns by how many rows more are held than before: 0,
        or a negative number when some turn out to be stored."""
        read = [entry for entries in self._read for entry in entries]
        stored = [entry for entry in read if entry.position <= position]
        unread = read[len(stored) :]
        self._read.clear()
        self._entries.extendleft(reversed(unread))
        self._waiting_rows += sum(entry.batch.rows for entry in unread)
        self._free(stored)
        self._commits.restart(position, ())
        self._admission.room_made()
        self._reader.wake()
        return -sum(entry.batch.rows for entry in stored)

    def close(self) -> None:
        """Refuses offers from now on, also those that wait; what is in the queue can still be read."""
        self._admission.close()
        self._wake()

    def _has_room(self, offer: Offer) -> bool:
        return (
            self._held_rows + offer.batch.rows <= self._limits.rows
            and self._held_bytes + offer.batch.size_bytes <= self._limits.bytes
        )

    def _take(self, offer: Offer) -> None:
        batch, request, receipt = offer.batch, offer.request, offer.receipt
        self._position += 1
        placed = () if request is None else (Placed(0, batch.rows, request),)
        self._entries.append(Entry(self._position, batch, self._clock(), placed))
        if receipt is not None:
            if request is not None:
                self._requests.hold(request, receipt, self._urge, Ack.QUEUED)
            self._commits.add(self._position, 0, offer)
            if offer.ack is Ack.COMMITTED:
                self._urge()
        self._on_taken(batch.rows)
        self._waiting_rows += batch.rows
        self._held_rows += batch.rows
        self._held_bytes += batch.size_bytes
        self._reader.arrived(self._waiting_rows)

    def _free(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._held_rows -= entry.batch.rows
            self._held_bytes -= entry.batch.size_bytes

    def _urge(self) -> None:
        """Somebody waits for the commit of something that is here."""
        self._urgent = self._position
        self._wake()

    def _wake(self) -> None:
        self._reader.wake()

    def _full(self) -> Refusal:
        msg = (
            f"the queue is full ({self._held_rows} of {self._limits.rows} metrics,"
            f" {self._held_bytes} of {self._limits.bytes} bytes): nothing was taken"
        )
        return Overloaded(msg, RETRY_AFTER_S)
