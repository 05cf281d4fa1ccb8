"""The disk journal's log: entries in the order of their positions, in segment files, until the database has them.

It refuses to say that an entry is there before the disk has said so, and to remove one before it is told that the
database has it. Everything is synchronous, and no two calls are made at once.

Invariants:
- an entry whose `append` or `finish` returned is read again after any crash, once, in its place, until it is
  committed;
- entries of an `append` that raised are not in the log and never come back, unless the error says `certain=False`:
  then the disk refused to take them back as well, and they may be there after a crash that comes before the next
  append;
- an append that a crash interrupts leaves all, some or none of its entries;
- what `read` gives out has been synced; what was begun and is not finished is not there;
- segments are removed whole, oldest first, each removal on the disk before the next; none with an entry that isn't
  committed, none that is damaged, and never the one that is written to;
- nothing in a file is changed, but for what is cut off behind the last entry that counts.

Byte layout: `ingestor.journal.frames`. Files are called `000000000001.segment`, numbered as they are made. A
segment's entries end with the position that the next one follows: what an earlier file holds behind it is void.

Recovery: `ingestor.journal.recovery`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, Self
from uuid import UUID

from loguru import logger

from ingestor.errors import JournalProblem
from ingestor.journal import frames
from ingestor.journal.files import Directory
from ingestor.journal.limits import JournalFailed, JournalFull, LogLimits
from ingestor.journal.parts import Gap
from ingestor.journal.reader import Reader
from ingestor.journal.records import Begun, Record, Summary, record_of
from ingestor.journal.recovery import Recovered, Recovery, recover
from ingestor.journal.retention import Retention
from ingestor.journal.segments import Segment

_CURSOR_INTERVAL_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
# In case that the clock stands still, or went back: more than an append can have.
_LEAP_MIN = 1 << 20


class SegmentLog:
    """The log. Positions are those of entries, from 1; a position means everything up to it."""

    def __init__(
        self, directory: Directory, limits: LogLimits, clock: Callable[[], float], found: Recovered
    ) -> None:
        """`open` makes one."""
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._seed = frames.seed(found.journal)
        self._segments = found.segments
        self._tail = found.tail
        self._last = found.last
        self._committed = found.committed
        self._hinted = found.committed
        self._hinted_at_s = 0.0
        self._leapt_from: int | None = None
        self._spare_bytes = 0
        self._reader = Reader(directory, self._seed, found.segments, found.tail, found.recovery)
        self._retention = Retention(directory, limits.retention_s, found.segments, self._reader.forget)
        self.id = found.journal
        self.recovery: Recovery = found.recovery

    @classmethod
    def open(cls, directory: Directory, limits: LogLimits, clock: Callable[[], float] = time.time) -> Self:
        """Locks the directory and reads what is there. Raises JournalProblem."""
        directory.lock()
        try:
            return cls(directory, limits, clock, recover(directory, clock))
        except OSError as error:
            directory.release()
            msg = f"the journal in {directory.path} can't be used: {(error.strerror or str(error)).lower()}"
            raise JournalProblem(msg) from error
        except BaseException:  # JournalProblem, or our own mistake: the lock must go; it is raised again
            directory.release()
            raise

    @property
    def database(self) -> UUID | None:
        """The identity of the database that it is filled for; None while that isn't known."""
        return self._tail.database

    @property
    def last(self) -> int:
        """The last entry's position; NOTHING before the first."""
        return self._last

    @property
    def first(self) -> int:
        """The oldest retained entry's position; `last + 1` when there is none."""
        return next((segment.first for segment in self._segments if not segment.empty), self._last + 1)

    @property
    def committed_hint(self) -> int:
        """Up to where the database has all, as far as is known: after `open` it may well have more, and it has less
        when it was restored to an earlier state."""
        return self._committed

    @property
    def is_pending(self) -> bool:
        """Whether it holds anything that isn't known to be committed."""
        return any(not segment.empty and segment.last > self._committed for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """What all segments take on disk, those set aside only until they are committed."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def held_bytes(self) -> int:
        """What entries take that aren't committed; up to 64 KiB too much while some are."""
        if self._committed >= self._last:
            return 0
        return sum(segment.held_bytes(self._committed) for segment in self._segments)

    def room_bytes(self) -> int:
        """How much can still be appended; what is retained although it is committed counts as room. Raises
        OSError."""
        droppable = self._retention.droppable_bytes(self._committed)
        by_bound = self._limits.bytes_max - (self.size_bytes - droppable)
        free_bytes = self._directory.space().available - self._limits.free_bytes_reserve
        self._spare_bytes = min(by_bound, free_bytes)
        return max(0, min(by_bound, free_bytes + droppable))

    def append(self, records: Sequence[Record]) -> None:
        """Writes them, in the order of their positions, which follow `last`; they are on the disk once this
        returns. Without any it is only tried whether the disk takes something.

        Raises JournalFull or JournalFailed: then none of them is, and the log goes on as before.
        """
        written, cursor = self._encoded(records)
        data = b"".join((*written, cursor))
        self._make_room(len(data))
        try:
            self._write(data)
        except OSError as error:
            self._write_again(data, error)
        self._note_written(records, written, len(cursor))

    @property
    def may_begin(self) -> bool:
        """Whether `begin` has nothing to do but write, as far as can be said without what is to be written."""
        return (
            self._tail.usable
            and self._tail.clean
            and self._spare_bytes >= self._limits.ample_bytes
            and not self._retention.is_due(self._clock())
        )

    def begin(self, records: Sequence[Record]) -> Begun | None:
        """As `append`, but for the sync, and only where there is nothing to do but write: no file to begin, to cut
        or to remove, and far more room than it takes as `room_bytes` saw it last. None where there is: then nothing
        was done.

        They are in the log once `finish` was called. Who calls `append` instead, because the sync failed, puts them
        into a new file. Raises OSError; then `append` cuts off what came into the file.
        """
        tail, segment = self._tail, self._tail.segment
        if segment is None or not self.may_begin:
            return None
        written, cursor = self._encoded(records)
        data = b"".join((*written, cursor))
        left_bytes = self._limits.bytes_max - self.size_bytes - len(data)
        if (
            left_bytes < 0
            or self._spare_bytes < self._limits.ample_bytes + len(data)
            or self._is_full(segment, len(data))
        ):
            return None
        return Begun(records, written, len(cursor), data, tail.begin(data))

    def finish(self, begun: Begun) -> None:
        """What was begun last is synced."""
        self._tail.synced(begun.data)
        self._spare_bytes -= len(begun.data)
        self._note_written(begun.records, begun.written, begun.cursor_bytes)

    def read(self, after: int, rows_max: int, bytes_max: int) -> list[Record]:
        """The entries behind `after`, whole, until so many rows or bytes are reached; at least one, where there
        is one. Passes over what is lost. Raises OSError."""
        records: list[Record] = []
        rows = size_bytes = 0
        for frame in self._reader.entries(after, self._last, self._committed):
            records.append(record_of(frame))
            rows += frame.head.rows
            size_bytes += frame.head.size_bytes
            if rows >= rows_max or size_bytes >= bytes_max:
                break
        return records

    def pending(self, after: int) -> Iterator[Summary]:
        """What lies behind `after`, without the rows. Raises OSError."""
        for frame in self._reader.entries(after, self._last, self._committed):
            head = frame.head
            requests = frames.decode_requests(frame.meta)
            yield Summary(head.position, head.rows, head.size_bytes, head.taken_at_us, requests)

    def committed(self, position: int) -> None:
        """The database has everything up to there. Removes segments whose retention is over."""
        self.note_committed(position)
        self._retention.drop_over(self._committed, self._clock())

    def note_committed(self, position: int) -> None:
        """As `committed`, but for what goes then: that does at the next such call."""
        self._committed = max(self._committed, min(position, self._last))
        self._retention.passed(self._committed, self._clock())

    def rewound(self, position: int) -> tuple[int, int] | None:
        """The database has everything up to there and no more, although it once had. Returns the first and the last
        position of what it lacks and isn't retained any more, if that is so."""
        self._committed = min(position, self._last)
        self._retention.rewound(self._committed)
        removed_to = self._removed_to()
        if position >= removed_to:
            return None
        self.recovery.note(Gap(position + 1, removed_to, "removed files"))
        return position + 1, removed_to

    def skip_to(self, position: int) -> None:
        """The database has everything up to there, which is more than was ever here: the next entry comes
        behind it. Raises OSError."""
        if position <= self._last:
            return
        self._roll(position + 1, position, previous=position)
        self._last = self._committed = position

    def leap(self) -> None:
        """The next entry comes at a position that was never given out, not even by this journal before it was
        damaged or brought back to an earlier state: behind the microseconds since 1970. Nothing is written yet."""
        if self._leapt_from is None:
            self._leapt_from = self._last
        self._last = max(self._last + _LEAP_MIN, int(self._clock() * 1_000_000))
        self._tail.distrust()

    def bind(self, database: UUID) -> None:
        """From now on it is filled for this database. Raises OSError."""
        if database == self.database:
            return
        before = self.database
        self._tail.name_database(database)
        try:
            self._roll(self._last + 1, self._committed)
        except OSError:
            self._tail.name_database(before)
            raise

    def close(self) -> None:
        """Leaves word of what is committed, and lets go of the directory."""
        try:
            if self._committed != self._hinted:
                self._tail.write_unsynced(self._cursor())
        except OSError as error:
            logger.warning(
                "the journal can't note what is committed, which costs time at the next start: {}", error
            )
        finally:
            self._reader.close()
            self._tail.close()
            self._directory.release()

    def _removed_to(self) -> int:
        """The last position before the oldest that is retained."""
        if not self._segments:
            return self._last
        oldest = next((segment for segment in self._segments if not segment.empty), self._segments[-1])
        return oldest.header.previous

    def _encoded(self, records: Sequence[Record]) -> tuple[list[bytes], bytes]:
        """Their frames, and that of a cursor if it is time for one."""
        written: list[bytes] = []
        for number, (position, batch, taken_at_us, requests) in enumerate(records):
            if position != self._last + 1 + number:
                msg = f"position {position} doesn't follow {self._last + number}"
                raise ValueError(msg)
            written.append(
                frames.encode_entry(
                    self._seed, position, batch, taken_at_us, requests=requests, number=number
                )
            )
        return written, self._cursor_if_due() if records else self._cursor()

    def _cursor_if_due(self) -> bytes:
        due = self._clock() >= self._hinted_at_s + _CURSOR_INTERVAL_S or self._clock() < self._hinted_at_s
        return self._cursor() if due else b""

    def _cursor(self) -> bytes:
        now_us = int(self._clock() * 1_000_000)
        return frames.encode_cursor(self._seed, self._committed, now_us, self.id, self.database)

    def _make_room(self, needed_bytes: int) -> None:
        while self._lacks_room(needed_bytes):
            if not self._retention.drop_oldest(self._committed):
                msg = (
                    f"the journal holds {self.held_bytes} bytes that aren't stored yet, and there is no room for"
                    f" {needed_bytes} more (JOURNAL_BYTES_MAX is {self._limits.bytes_max})"
                )
                raise JournalFull(msg, certain=self._is_cut())

    def _lacks_room(self, needed_bytes: int) -> bool:
        if self.size_bytes + needed_bytes > self._limits.bytes_max:
            return True
        reserve = self._limits.free_bytes_reserve
        try:
            return bool(reserve) and self._directory.space().available - needed_bytes < reserve
        except OSError as error:
            self._raise(error)

    def _write(self, data: bytes) -> None:
        segment = self._tail.segment
        if not self._tail.usable or segment is None or self._is_full(segment, len(data)):
            self._roll(self._last + 1, self._committed)
        self._tail.write(data)

    def _is_full(self, segment: Segment, more_bytes: int) -> bool:
        return not segment.empty and segment.end + more_bytes > self._limits.roll_bytes

    def _write_again(self, data: bytes, error: OSError) -> None:
        """Once more, after making room or else in a new file. Raises AppendFailed."""
        full = error.errno in _FULL
        if full:
            if not self._retention.drop_all(self._committed):
                self._raise(error)
        else:
            logger.error("the journal can't be written to, a new file is tried: {}", error)
            self._tail.distrust()
        try:
            self._write(data)
        except OSError as second:
            self._raise(second)

    def _raise(self, error: OSError) -> NoReturn:
        certain = self._is_cut()
        kind = JournalFull if error.errno in _FULL else JournalFailed
        reason = (error.strerror or str(error)).lower()
        raise kind(
            f"the journal in {self._directory.path} can't be written: {reason}", certain=certain
        ) from error

    def _is_cut(self) -> bool:
        """Cuts what failed to be written, so that it is never read; says whether it could."""
        try:
            self._tail.cut()
        except OSError as uncut:
            logger.error("the journal can't cut off what it failed to write: {}", uncut)
            return False
        return True

    def _roll(self, first: int, committed: int, previous: int | None = None) -> None:
        before = self._tail.segment
        if previous is None:
            previous = self._last if self._leapt_from is None else self._leapt_from
            # It goes, and what it says must stay; or it is kept for its damage, and nothing of it is lost.
            if before is not None and before.empty and (not before.damaged or previous == before.last):
                previous = min(previous, before.header.previous)
        after = self._tail.roll(first, previous, committed)
        self._leapt_from = None
        self._hinted, self._hinted_at_s = committed, 0.0
        self._segments.append(after)
        if before is not None and before.empty and not before.damaged:
            self._retention.drop(before)

    def _note_written(self, records: Sequence[Record], written: Sequence[bytes], cursor_bytes: int) -> None:
        segment = self._tail.segment
        assert segment is not None
        offset = segment.end - cursor_bytes - sum(map(len, written))
        for record, data in zip(records, written, strict=True):
            segment.mark(record.position, offset)
            offset += len(data)
        if records:
            self._last = segment.last = records[-1].position
        if cursor_bytes:
            self._hinted, self._hinted_at_s = self._committed, self._clock()
