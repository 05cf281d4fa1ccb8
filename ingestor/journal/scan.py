"""One segment read from end to end: what is good in it, what is missing, where it was cut off.

It changes no file. What a scan means for the journal is the affair of `parts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from ingestor.journal import frames
from ingestor.journal.files import File
from ingestor.journal.frames import CURSOR, ENTRY, HEAD_BYTES, HEADER_BYTES
from ingestor.journal.segments import WINDOW_BYTES, Bad, Frame, walk

_IDS_BYTES = 32
_CURSOR_BYTES = HEAD_BYTES + _IDS_BYTES


class Scan:
    """What is in the entries of one file from `first` on, those from `limit` on being void (None: none are).

    `last` is the last good entry's position, `missing` are ranges of positions between good ones; `end` is behind
    the last good frame, `hint` what the last cursor said, `append_first` the first position of the append that the
    last entry came with. `scars` are bad bytes before a good frame, `bad_at_end` those behind all good ones;
    `lost_end` says that entries were behind the last good one, how many nobody can say: a cursor comes after them.
    """

    def __init__(self, first: int, limit: int | None) -> None:
        self.limit = limit
        self.last = first - 1
        self.end = HEADER_BYTES
        self.hint: int | None = None
        self.append_first = 0
        self.missing: list[tuple[int, int]] = []
        self.scars: list[Bad] = []
        self.bad_at_end: list[Bad] = []
        self.lost_end = False

    @property
    def cut_off(self) -> bool:
        """Whether entries are missing behind the good ones."""
        return self.limit is not None and self.last + 1 < self.limit

    @property
    def scarred(self) -> bool:
        """Whether bytes are bad that an entry or a good frame comes behind, or should; the others are what an
        append left that failed or never ended."""
        return bool(self.scars or self.missing or (self.bad_at_end and self.cut_off))

    def entries(self, file: File, seed: int, size_bytes: int) -> Iterator[Frame]:
        """The good ones, in order. All the rest is known once they have been taken. Raises OSError."""
        for item in walk(file, seed, HEADER_BYTES, size_bytes):
            if isinstance(item, Bad):
                self.bad_at_end.append(item)
            elif item.head.kind == CURSOR:
                self.hint = item.head.position
                # What is no longer than a cursor was one, most likely.
                long = any(bad.end - bad.offset > _CURSOR_BYTES for bad in self.bad_at_end)
                self.lost_end = self.lost_end or long
                self._good(item)
            elif self.limit is not None and item.head.position >= self.limit:
                return  # and what comes behind it, too
            elif item.head.position > self.last:
                self._entry(item)
                yield item
            else:
                self.bad_at_end.append(Bad(item.offset, item.end))

    def _entry(self, frame: Frame) -> None:
        position = frame.head.position
        if position > self.last + 1:
            self.missing.append((self.last + 1, position - 1))
        self.append_first, self.lost_end = position - frame.head.number, False
        self.last = position
        self._good(frame)

    def _good(self, frame: Frame) -> None:
        self.scars += self.bad_at_end
        self.bad_at_end.clear()
        self.end = frame.end


def first_entry(file: File, seed: int, size_bytes: int) -> int | None:
    """The position of the first good entry; None without one. Raises OSError."""
    for item in walk(file, seed, HEADER_BYTES, size_bytes):
        if isinstance(item, Frame) and item.head.kind == ENTRY:
            return item.head.position
    return None


def journal_in(file: File, size_bytes: int) -> UUID | None:
    """The journal's id as the first cursor's frame says it; for files whose header can't be read. Raises
    OSError."""
    for data in _windows(file, size_bytes):
        at = data.find(frames.MARKER)
        while at >= 0:
            found = _journal_at(data, at)
            if found is not None:
                return found
            at = data.find(frames.MARKER, at + 1)
    return None


def _windows(file: File, size_bytes: int) -> Iterator[bytes]:
    step = WINDOW_BYTES - HEAD_BYTES - _IDS_BYTES  # a frame may lie across the border
    for offset in range(0, size_bytes, step):
        yield file.read(offset, min(WINDOW_BYTES, size_bytes - offset))


def _journal_at(data: bytes, at: int) -> UUID | None:
    meta = memoryview(data)[at + HEAD_BYTES : at + HEAD_BYTES + _IDS_BYTES]
    if len(meta) < _IDS_BYTES:
        return None
    journal = frames.decode_journal(meta)
    seed = frames.seed(journal)
    head = frames.decode_head(seed, data, at)
    if head is None or head.kind != CURSOR or not frames.is_sound(seed, head, meta):
        return None
    return journal
