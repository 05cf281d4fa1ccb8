"""What a journal's files hold, read from outside: while a server uses them, or when none does.

It takes no lock and writes nothing; files that vanish meanwhile were committed, and one that grows is read as
far as it went. It is as strict as the log itself: every checksum is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from ingestor.journal import frames
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.frames import CURSOR, ENTRY, HEADER_BYTES
from ingestor.journal.inventory import Found, identity, take_inventory
from ingestor.journal.segments import DAMAGED, Bad, Frame, walk
from ingestor.model import MetricBatch


class BadBytes(NamedTuple):
    """Bytes of a file that are no entry. `torn` ones are the last of all: what an append left that never ended,
    or has not ended yet."""

    file: str
    offset: int
    end: int
    torn: bool


@dataclass
class Survey:
    """`pending_*` count what is not known to be committed; `gaps` are positions missing among that."""

    journal: UUID
    database: UUID | None
    segments: int
    size_bytes: int
    first: int = 0
    last: int = 0
    committed: int = 0
    entries: int = 0
    pending_entries: int = 0
    pending_metrics: int = 0
    oldest_pending_us: int | None = None
    damaged_files: list[str] = field(default_factory=list)
    bad: list[BadBytes] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.damaged_files and not self.gaps and all(each.torn for each in self.bad)


class Exported(NamedTuple):
    """The rows of an entry."""

    position: int
    batch: MetricBatch


def survey(
    directory: DiskDirectory, *, whole: bool, progress: Callable[[int, int], object] = lambda done, all_: None
) -> Survey | None:
    """Reads the journal, `whole` or without what was committed when the newest file was begun; None when there
    is none. `progress` hears of bytes read and of all. Raises JournalProblem, OSError."""
    found = take_inventory(directory)
    if not found:
        return None
    journal, database = identity(directory, found)
    total = sum(item.size_bytes for item in found)
    told = Survey(journal, database, len(found), total)
    told.damaged_files = [item.name for item in found if item.name.endswith(DAMAGED)]
    known = max((item.header.committed for item in found if item.header is not None), default=0)
    firsts = [item.header.first for item in found if item.header is not None]
    told.first, told.committed = min(firsts, default=0), known
    positions: list[tuple[int, int, int]] = []
    done = 0
    for item, limit in zip(found, _limits(found), strict=True):
        done += item.size_bytes
        if whole or limit is None or limit - 1 > known:
            _read(directory, item, limit, told, positions)
        progress(done, total)
    _conclude(told, positions, known if not whole else 0)
    return told


def export(directory: DiskDirectory, after: int | None) -> Iterator[Exported]:
    """The entries behind `after` (None: behind what is known to be committed). Raises JournalProblem, OSError."""
    if after is None:
        looked = survey(directory, whole=False)
        after = 0 if looked is None else looked.committed
    found = take_inventory(directory)
    if not found:
        return
    seed = frames.seed(identity(directory, found)[0])
    for item, limit in zip(found, _limits(found), strict=True):
        if limit is not None and limit - 1 <= after:
            continue
        for frame in _frames(directory, item, seed):
            if isinstance(frame, Frame) and frame.head.kind == ENTRY:
                position = frame.head.position
                if position > after and (limit is None or position < limit):
                    yield Exported(position, frames.decode_batch(frame.head, frame.payload))


def _read(
    directory: DiskDirectory,
    item: Found,
    limit: int | None,
    told: Survey,
    positions: list[tuple[int, int, int]],
) -> None:
    bad: list[Bad] = []
    for frame in _frames(directory, item, frames.seed(told.journal)):
        if isinstance(frame, Bad):
            bad.append(frame)
        elif limit is not None and frame.head.kind == ENTRY and frame.head.position >= limit:
            break
        else:
            # Bytes before a good frame are damage, whatever they were.
            told.bad += [BadBytes(item.name, each.offset, each.end, torn=False) for each in bad]
            bad.clear()
            if frame.head.kind == CURSOR:
                told.committed = max(told.committed, frame.head.position)
            else:
                positions.append((frame.head.position, frame.head.rows, frame.head.taken_at_us))
    told.bad += [BadBytes(item.name, each.offset, each.end, torn=limit is None) for each in bad]


def _conclude(told: Survey, positions: Sequence[tuple[int, int, int]], start: int) -> None:
    expected: int | None = None
    for position, rows, taken_at_us in positions:
        told.entries += 1
        told.last = max(told.last, position)
        if expected is not None and position > expected and position - 1 > max(told.committed, start):
            told.gaps.append((max(expected, told.committed + 1), position - 1))
        expected = position + 1
        if position > told.committed:
            told.pending_entries += 1
            told.pending_metrics += rows
            if told.oldest_pending_us is None:
                told.oldest_pending_us = taken_at_us
    told.last = max(told.last, told.committed)


def _limits(found: Sequence[Found]) -> list[int | None]:
    """Where the entries of each file end: where the next one's begin."""
    limits: list[int | None] = []
    limit: int | None = None
    for item in reversed(found):
        limits.append(limit)
        if item.header is not None:
            limit = item.header.first if limit is None else min(limit, item.header.first)
    return limits[::-1]


def _frames(directory: DiskDirectory, item: Found, seed: int) -> Iterator[Frame | Bad]:
    try:
        file = directory.open_file(item.name)
    except FileNotFoundError:
        return  # removed meanwhile, so it was committed
    try:
        yield from walk(file, seed, HEADER_BYTES, item.size_bytes)
    finally:
        file.close()
