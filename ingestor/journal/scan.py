"""One segment read from end to end: what is good in it, what is missing, where it was cut off.

It changes no file. What a scan means for the journal is the affair of `recovery`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from ingestor.journal import frames
from ingestor.journal.files import File
from ingestor.journal.frames import CURSOR, ENTRY, HEAD_BYTES, HEADER_BYTES
from ingestor.journal.segments import WINDOW_BYTES, Bad, Frame, Segment, walk

_IDS_BYTES = 32


@dataclass
class Scan:
    """`missing` are ranges of positions between good entries; `end` is behind the last good frame, `hint` what
    the last cursor said, `append_first` the first position of the append that the last entry came with.
    `scarred` says that bytes before a good frame are bad, `bad_at_end` that bytes behind all good ones are."""

    end: int = HEADER_BYTES
    hint: int | None = None
    append_first: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    scarred: bool = False
    bad_at_end: bool = False


def scan(file: File, seed: int, segment: Segment, limit: int | None) -> Scan:
    """Fills in what `segment` has (`last`, `end`, marks). Entries from position `limit` on are void. Raises
    OSError."""
    result = Scan()
    for item in walk(file, seed, HEADER_BYTES, segment.size_bytes):
        if isinstance(item, Bad):
            result.bad_at_end = True
        elif item.head.kind == CURSOR:
            result.hint = item.head.position
            _good(result, item)
        elif limit is not None and item.head.position >= limit:
            break  # and what comes behind it, too
        elif item.head.position > segment.last:
            _entry(result, segment, item)
        else:
            result.bad_at_end = True
    segment.end = result.end
    return result


def _entry(result: Scan, segment: Segment, frame: Frame) -> None:
    position = frame.head.position
    if position > segment.last + 1:
        result.missing.append((segment.last + 1, position - 1))
        result.scarred = True
    result.append_first = position - frame.head.number
    segment.mark(position, frame.offset)
    segment.last = position
    _good(result, frame)


def _good(result: Scan, frame: Frame) -> None:
    result.scarred = result.scarred or result.bad_at_end
    result.bad_at_end = False
    result.end = frame.end


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
