"""The books of the disk journal against plain lists: whatever happens in whatever order, they add up."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingestor.journal.backlog import Marks
from ingestor.journal.books import Books
from ingestor.journal.joining import join
from ingestor.journal.receipts import Offer
from ingestor.model import Ack, Entry
from tests.journal.contract import batch, limits

SIZE = batch().size_bytes
ROWS, BYTES, ROOM_BYTES = 12, 3 * SIZE, 1024**2


def rows_of(held: list[Offer] | list[Entry]) -> int:
    return sum(each.batch.rows for each in held)


class BooksMachine(RuleBasedStateMachine):
    """`unwritten` and `group` are what was taken and is in no file, `disk` what is, `read` how many entries of it
    were read, `stored` how many of them the database has."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Books(limits(rows=ROWS, size=BYTES), 0)
        self.books.room_bytes = ROOM_BYTES
        self.unwritten: list[Offer] = []
        self.group: list[Offer] = []
        self.disk: list[Entry] = []
        self.reads: list[list[Entry]] = []
        self.read = self.stored = 0

    @rule(rows=st.integers(1, 5), ack=st.sampled_from(list(Ack)))
    def take(self, rows: int, ack: Ack) -> None:
        offer = Offer(batch(rows), ack, None, None, 0.0)
        if self.books.has_room(offer):
            self.books.took(offer)
            self.unwritten.append(offer)

    @precondition(lambda self: self.unwritten and not self.group)
    @rule(size=st.integers(1, 3 * SIZE))
    def begin_to_write(self, size: int) -> None:
        self.group = self.books.next_group(size)
        assert self.group == self.unwritten[: len(self.group)]
        del self.unwritten[: len(self.group)]
        assert sum(offer.size_bytes for offer in self.group[:-1]) < size

    @precondition(lambda self: self.group)
    @rule(joined=st.booleans())
    def write(self, *, joined: bool) -> None:
        first = self.books.backlog.last + 1
        some = [self.group] if joined else [[offer] for offer in self.group]
        entries = [each.entry for number, offers in enumerate(some) for each in join(offers, first + number)]
        self.books.wrote(self.group, entries)
        self.disk += entries
        self.group = []

    @precondition(lambda self: self.group)
    @rule()
    def fail_to_write(self) -> None:
        """Those who were told nothing are refused."""
        self.books.put_back(self.group)
        offers = self.group + self.unwritten
        self.group, self.unwritten = [], [offer for offer in offers if offer.ack is Ack.QUEUED]
        assert self.books.drop_unacknowledged() == [offer for offer in offers if offer.ack is not Ack.QUEUED]
        assert list(self.books.offers) == self.unwritten

    @rule(rows=st.integers(1, 8))
    def give(self, rows: int) -> None:
        backlog = self.books.backlog
        entries = backlog.take(rows)
        if backlog.spilled:
            entries = self.disk[self.read :]
            assert backlog.read(entries) == 0
        if entries:
            self.books.gave(entries)
            assert entries == self.disk[self.read : self.read + len(entries)]
            self.read += len(entries)
            self.reads.append(entries)

    @precondition(lambda self: self.reads)
    @rule()
    def settle(self) -> None:
        entries = self.reads.pop(0)
        self.books.settled(entries[-1].position)
        self.stored += len(entries)

    @rule(share=st.floats(0, 1))
    def go_back(self, share: float) -> None:
        """The database turns out to have more, or fewer, than was known."""
        before = self.books.durable_rows
        self.stored = self.read = int(share * len(self.disk))
        self.reads = []
        left = self.disk[self.stored :]
        position = self.disk[self.stored - 1].position if self.stored else 0
        assert self.books.restarted(position, rows_of(left), Marks()) == rows_of(left) - before

    @precondition(lambda self: self.books.backlog.spilled)
    @rule()
    def lose(self) -> None:
        """The disk gives back nothing of what was not read."""
        missing = self.books.backlog.read([])
        self.books.lost(missing)
        lost, self.disk = self.disk[self.read :], self.disk[: self.read]
        assert missing == rows_of(lost)

    @invariant()
    def add_up(self) -> None:
        books, unwritten = self.books, self.group + self.unwritten
        assert list(books.offers) == self.unwritten
        assert list(books.being_written) == self.group
        queued = [offer for offer in unwritten if offer.ack is Ack.QUEUED]
        assert books.unwritten_rows == rows_of(unwritten) <= ROWS
        assert books.unwritten_bytes == sum(offer.size_bytes for offer in unwritten) <= BYTES
        assert books.queued_rows == rows_of(queued)
        assert books.durable_rows == rows_of(self.disk[self.stored :])
        assert books.backlog.waiting_rows == rows_of(self.disk[self.read :])
        assert books.held_rows == books.durable_rows + books.queued_rows
        assert books.given_to == (self.disk[self.read - 1].position if self.read else 0)


TestBooks = BooksMachine.TestCase


def test_what_waits_for_the_disk_needs_room_there_with_all_before_it() -> None:
    """Rows that are not written take none yet, so they are counted beforehand, with what a record takes."""
    books = Books(limits(), 0)
    offer = Offer(batch(), Ack.QUEUED, None, None, 0.0)
    assert not books.has_room(offer)
    books.room_bytes = 2 * SIZE + 1_024
    books.took(offer)
    assert books.has_room(offer)
    books.took(offer)
    assert not books.has_room(offer)
    books.room_bytes = ROOM_BYTES
    assert books.has_room(offer)
    books.problem = "broken"
    assert not books.has_room(offer)


def test_a_group_is_filled_up_and_no_more() -> None:
    """Until it has as many bytes as it may be given."""
    books = Books(limits(), 0)
    offer = Offer(batch(), Ack.QUEUED, None, None, 0.0)
    for _ in range(4):
        books.took(offer)
    assert len(books.next_group(SIZE)) == 1
    assert len(books.next_group(SIZE + 1)) == 2
    assert len(books.next_group(SIZE + 1)) == 1
