"""What a journal's files hold, read from outside: while a server uses them, or when none does.

It takes no lock and writes nothing; files that vanish meanwhile were committed, and one that grows is read as
far as it went. It is as strict as the log itself: every checksum is looked at.

What it says is what the next start would find (`ingestor.journal.recovery`): the newest header and then the last
cursor of the last file say up to where all is committed, be it less than was said before, because a database that
was restored went back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from ingestor.journal import frames
from ingestor.journal.files import Directory
from ingestor.journal.frames import HEADER_BYTES, Head
from ingestor.journal.inventory import Found, take_inventory
from ingestor.journal.parts import Gap, Part, Parts, arrange, take_unfinished
from ingestor.journal.scan import Scan
from ingestor.journal.segments import Bad, Frame
from ingestor.model import MetricBatch


class BadBytes(NamedTuple):
    """Bytes of a file that are no entry. `torn` ones stand behind all that the file is there for: what an append
    left that failed, never ended, or has not ended yet."""

    file: str
    offset: int
    end: int
    torn: bool


@dataclass
class Survey:
    """`pending_*` count what is not known to be committed; `gaps` are positions missing among that. `damaged_files`
    were set aside, or are to be."""

    journal: UUID
    database: UUID | None
    segments: int
    size_bytes: int
    first: int
    committed: int
    last: int = 0
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
        return not self.damaged_files and not self.gaps


class Exported(NamedTuple):
    """The rows of an entry."""

    position: int
    batch: MetricBatch


def survey(
    directory: Directory, *, whole: bool, progress: Callable[[int, int], object] = lambda done, all_: None
) -> Survey | None:
    """Reads the journal, `whole` or without files of which all is committed; None when there is none. `progress`
    hears of bytes read and of all. Raises JournalProblem, OSError."""
    found = _take_inventory(directory)
    if not found:
        return None
    return _survey(directory, found, arrange(directory, found), whole=whole, progress=progress)


def export(
    directory: Directory,
    after: int | None,
    on_missing: Callable[[int, int], object] = lambda first, last: None,
) -> Iterator[Exported]:
    """The entries behind `after` (None: behind what is known to be committed). `on_missing` hears of the
    positions, from first to last, that should be there and are not. Raises JournalProblem, OSError."""
    found = _take_inventory(directory)
    if not found:
        return
    parts = arrange(directory, found)
    looked = _survey(directory, found, parts, whole=False, progress=lambda done, all_: None)
    after = looked.committed if after is None else after
    names = {item.name for item in found}
    for part in parts.parts:
        if part.ends_by(after) or (part.let_go and after >= looked.committed):
            continue
        scan = part.scan()
        with suppress(FileNotFoundError):  # removed meanwhile, so it was committed
            for frame in _entries(directory, parts, part, scan):
                if frame.head.position > after:
                    yield Exported(frame.head.position, frames.decode_batch(frame.head, frame.payload))
            # Files that were removed from behind a damaged one, which is kept, were committed.
            gaps = [(gap.first, gap.last) for gap in parts.gaps(part, scan) if gap.file in names]
            for first, last in _among(gaps, after, looked.committed):
                on_missing(first, last)
    for first, last in _among(looked.gaps, after, looked.last):
        on_missing(first, last)


def _take_inventory(directory: Directory) -> list[Found]:
    """What is there, but for a file that is only just being made."""
    found = take_inventory(directory)
    take_unfinished(found)
    return found


def _survey(
    directory: Directory,
    found: Sequence[Found],
    parts: Parts,
    *,
    whole: bool,
    progress: Callable[[int, int], object],
) -> Survey:
    size_bytes = sum(item.size_bytes for item in found)
    first = parts.held[0].first if parts.parts else 0
    committed = _committed(directory, parts)
    told = Survey(parts.journal, parts.database, len(found), size_bytes, first, committed)
    lost: list[Gap] = []
    done = 0
    for part in parts.parts:
        if whole or not (part.let_go or part.ends_by(committed)):
            with suppress(FileNotFoundError):  # removed meanwhile, so it was committed
                lost += _tell(told, directory, parts, part)
        done += part.found.size_bytes
        progress(done, size_bytes)
    told.last = max(told.last, committed)  # also when the newest was removed meanwhile
    _tell_hollow(told, parts, lost)
    told.damaged_files = [item.name for item in found if item.damaged or item.name in told.damaged_files]
    return told


def _committed(directory: Directory, parts: Parts) -> int:
    """Up to where all is committed, as far as the files know."""
    if not parts.parts:
        return 0  # there is no header that says anything
    newest = parts.parts[-1]
    scan = newest.scan()
    with suppress(FileNotFoundError):  # meanwhile it isn't the newest any more
        for _ in _entries(directory, parts, newest, scan):
            pass
    return parts.committed_by(scan)


def _entries(directory: Directory, parts: Parts, part: Part, scan: Scan) -> Iterator[Frame]:
    """The good ones, in order."""
    file = directory.open_file(part.found.name)
    try:
        yield from scan.entries(file, parts.seed, part.found.size_bytes)
    finally:
        file.close()


def _tell(told: Survey, directory: Directory, parts: Parts, part: Part) -> list[Gap]:
    """Reads a part, and adds it to what is told. Returns what of it is lost."""
    scan = part.scan()
    for frame in _entries(directory, parts, part, scan):
        _count(told, frame.head, pending=frame.head.position > told.committed and not part.let_go)
    lost = parts.lost(part, scan, told.committed)
    told.gaps += [(max(gap.first, told.committed + 1), gap.last) for gap in lost]
    told.last = max(scan.last, told.committed, *(gap.last for gap in lost))
    told.bad += _bad(part, scan)
    if parts.is_damaged(part, scan, lost):
        told.damaged_files.append(part.found.name)
    return lost


def _count(told: Survey, head: Head, *, pending: bool) -> None:
    told.entries += 1
    if pending:
        told.pending_entries += 1
        told.pending_metrics += head.rows
        if told.oldest_pending_us is None:
            told.oldest_pending_us = head.taken_at_us


def _bad(part: Part, scan: Scan) -> Iterator[BadBytes]:
    """With all entries there, what lies behind them is of a write that failed, and was made good in the next
    file."""
    header = [Bad(0, HEADER_BYTES)] if part.headless else []
    for bad in (*header, *scan.scars):
        yield BadBytes(part.found.name, bad.offset, bad.end, torn=False)
    for bad in scan.bad_at_end:
        yield BadBytes(part.found.name, bad.offset, bad.end, torn=not scan.cut_off)


def _tell_hollow(told: Survey, parts: Parts, lost: Sequence[Gap]) -> None:
    """Files without header and entries."""
    for item in parts.hollow:
        if parts.is_remnant(item, lost):
            continue
        if parts.is_newest(item):
            told.last += 1
            told.gaps.append((told.last, told.last))
        told.bad.append(BadBytes(item.name, 0, item.size_bytes, torn=False))
        told.damaged_files.append(item.name)


def _among(ranges: Iterable[tuple[int, int]], after: int, end: int) -> Iterator[tuple[int, int]]:
    """What of these lies behind `after` and up to `end`."""
    for first, last in ranges:
        within = max(first, after + 1), min(last, end)
        if within[0] <= within[1]:
            yield within
