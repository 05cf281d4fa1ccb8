"""What a disk journal holds and what it has room for: one set of books, which both of its halves keep, the one that
writes (`journal.inlet`) and the one that reads (`journal.outlet`).

It touches no file and tells nobody anything. It counts no row twice, and none as durable that is not.

A row goes one way, and each step is one method:

    took ──► unwritten ──► wrote ──► waiting ──► gave ──► in flight ──► settled
             `offers`                `backlog`            `in_flight`

Invariants, whenever the event loop may turn:
- `unwritten_rows` and `unwritten_bytes` are those of `offers` and of the one group that is being written, and stay
  within the queue's limits; `queued_rows` of them are acknowledged;
- `durable_rows` are synced and not settled: `backlog.waiting_rows`, and those in flight;
- `committed` is where the database stands, as far as is known here, and `released` what of it a write, a release or
  a restart last told the log, which may remove nothing behind it;
- what nobody will write any more (the journal has ended, or its writer died) stays counted: it is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from ingestor.journal.admission import QueueLimits
from ingestor.journal.backlog import Backlog, Marks
from ingestor.journal.receipts import Offer
from ingestor.model import Ack, Entry, Taken
from ingestor.model.delivery import NOTHING

# What a record takes on disk beside its rows.
_FRAME_BYTES = 1_024


class Books:
    """`room_bytes` is what the log may still take, as it said last; `problem` is why nothing can be written at the
    moment; up to `urgent` somebody waits for the commit."""

    def __init__(self, limits: QueueLimits, last: int) -> None:
        """For a log that ends at `last`."""
        self._limits = limits
        self.offers: deque[Offer] = deque()
        self.being_written: Sequence[Offer] = ()
        self.backlog = Backlog(last)
        # What was read at once and is not settled yet, oldest first.
        self.in_flight: deque[Sequence[Taken]] = deque()
        self.unwritten_rows = self.unwritten_bytes = self.queued_rows = 0
        self.durable_rows = 0
        self.room_bytes = 0
        self.problem: str | None = None
        self.committed = self.released = self.urgent = NOTHING

    @property
    def held_rows(self) -> int:
        """Acknowledged rows that are not settled."""
        return self.durable_rows + self.queued_rows

    @property
    def held_entries(self) -> int:
        """What lies in memory, as a number of requests at the least."""
        return len(self.offers) + self.backlog.entries + sum(map(len, self.in_flight))

    @property
    def held_bytes(self) -> int:
        """The memory that waiting rows take."""
        return self.unwritten_bytes + self.backlog.size_bytes

    @property
    def urged(self) -> bool:
        """Whether somebody waits for the commit of what is unread."""
        return self.urgent > self.backlog.read_to

    @property
    def given_to(self) -> int:
        """The last position in flight; what is committed when there is none."""
        return self.in_flight[-1][-1].position if self.in_flight else self.committed

    def oldest_s(self) -> float | None:
        """When the oldest that is acknowledged and not settled was taken (monotonic seconds)."""
        oldest_s = self.in_flight[0][0].taken_at_s if self.in_flight else self.backlog.oldest_s()
        if oldest_s is None and self.offers and self.offers[0].ack is Ack.QUEUED:
            return self.offers[0].came_at_s
        return oldest_s

    def has_room(self, offer: Offer) -> bool:
        """Whether it fits into the queue, and what is in the queue then into the log."""
        return (
            self.problem is None
            and self.unwritten_rows + offer.batch.rows <= self._limits.rows
            and self.unwritten_bytes + offer.size_bytes <= self._limits.bytes
            and self.unwritten_bytes + offer.size_bytes + _FRAME_BYTES <= self.room_bytes
        )

    def took(self, offer: Offer) -> None:
        """It came in, behind all others."""
        self.offers.append(offer)
        self.unwritten_rows += offer.batch.rows
        self.unwritten_bytes += offer.size_bytes
        if offer.ack is Ack.QUEUED:
            self.queued_rows += offer.batch.rows

    def next_group(self, bytes_max: int) -> list[Offer]:
        """Takes out the oldest offers, to be written at once: until they have so many bytes."""
        group: list[Offer] = []
        size = 0
        while self.offers and size < bytes_max:
            offer = self.offers.popleft()
            size += offer.size_bytes
            group.append(offer)
        self.being_written = group
        return group

    def put_back(self, group: Sequence[Offer]) -> None:
        """These, taken out last, are not written after all."""
        self.being_written = ()
        self.offers.extendleft(reversed(group))

    def wrote(self, group: Sequence[Offer], entries: Iterable[Entry]) -> None:
        """These offers, taken out last, are durable now, as these entries."""
        self.being_written = ()
        self.unwritten_rows -= sum(offer.batch.rows for offer in group)
        self.unwritten_bytes -= sum(offer.size_bytes for offer in group)
        self.queued_rows -= sum(offer.batch.rows for offer in group if offer.ack is Ack.QUEUED)
        for entry in entries:
            self.durable_rows += entry.batch.rows
            self.backlog.add(entry)

    def drop_unacknowledged(self) -> list[Offer]:
        """Takes out the offers of those who were told nothing yet, for good; the others stay, in their order."""
        offers, self.offers = self.offers, deque()
        dropped: list[Offer] = []
        for offer in offers:
            if offer.ack is Ack.QUEUED:
                self.offers.append(offer)
                continue
            self.unwritten_rows -= offer.batch.rows
            self.unwritten_bytes -= offer.size_bytes
            dropped.append(offer)
        return dropped

    def gave(self, entries: Sequence[Entry]) -> None:
        """These were read, to be stored."""
        self.in_flight.append([entry.taken for entry in entries])

    def settled(self, last: int) -> None:
        """What was read first and is not settled yet, up to the entry at `last`, is stored."""
        read = self.in_flight.popleft()
        assert read[-1].position == last
        self.durable_rows -= sum(entry.rows for entry in read)
        self.committed = last

    def lost(self, rows: int) -> None:
        """The disk does not give back so many of those that waited; the backlog knows."""
        self.durable_rows -= rows

    def restarted(self, position: int, rows: int, marks: Marks) -> int:
        """The database has what stands up to `position`; what is behind it, so many rows, is read again. Returns by
        how many rows more are held than before."""
        self.in_flight.clear()
        self.committed = self.released = position
        self.backlog.restart(position, rows, marks)
        change = rows - self.durable_rows
        self.durable_rows = rows
        return change
