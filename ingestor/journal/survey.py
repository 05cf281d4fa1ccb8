"""What a journal's files hold, read from outside: while a server uses them, or when none does.

It takes no lock and writes nothing; files that vanish meanwhile were committed, and one that grows is read as
far as it went. It is as strict as the log itself: every checksum is looked at.

What it says is what the next start would find (`ingestor.journal.recovery`): the newest header and then the last
cursor of the last file say up to where all is committed, be it less than was said before, because a database that
was restored went back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from ingestor.journal import frames
from ingestor.journal.files import Directory, File
from ingestor.journal.frames import CURSOR, HEADER_BYTES, Head
from ingestor.journal.inventory import Found, identity, not_ours, take_inventory
from ingestor.journal.scan import first_entry
from ingestor.journal.segments import DAMAGED, Bad, Frame, walk
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
    directory: Directory, *, whole: bool, progress: Callable[[int, int], object] = lambda done, all_: None
) -> Survey | None:
    """Reads the journal, `whole` or without files of which all is committed; None when there is none. `progress`
    hears of bytes read and of all. Raises JournalProblem, OSError."""
    files = _files(directory)
    if files is None:
        return None
    told = Survey(
        files.journal, files.database, len(files.found), sum(item.size_bytes for item in files.found)
    )
    told.damaged_files = [item.name for item in files.found if item.name.endswith(DAMAGED)]
    told.first = files.parts[0].first if files.parts else 0
    told.committed = files.committed
    readings: list[_Reading] = []
    done = 0
    # The last file comes first: its last cursor says what of all there is to look for.
    for part in reversed(files.parts):
        if whole or part.limit is None or part.limit - 1 > told.committed:
            if part.limit is None:
                told.committed = _last_cursor(directory, part, files)
            reading = _Reading(part)
            for frame in reading.entries(directory, files.seed):
                reading.count(frame.head, told.committed)
            readings.append(reading)
        done += part.item.size_bytes
        progress(done, told.size_bytes)
    for reading in reversed(readings):
        _add(told, reading)
    _add_hollow(told, files)
    return told


def export(
    directory: Directory,
    after: int | None,
    on_missing: Callable[[int, int], object] = lambda first, last: None,
) -> Iterator[Exported]:
    """The entries behind `after` (None: behind what is known to be committed). `on_missing` hears of the
    positions, from first to last, that should be there and are not. Raises JournalProblem, OSError."""
    looked = survey(directory, whole=False)
    files = _files(directory)
    if looked is None or files is None:
        return
    after = looked.committed if after is None else after
    for part in files.parts:
        if part.limit is not None and part.limit - 1 <= after:
            continue
        reading = _Reading(part)
        for frame in reading.entries(directory, files.seed):
            if frame.head.position > after:
                yield Exported(frame.head.position, frames.decode_batch(frame.head, frame.payload))
        for first, last in _among(reading.holes(), after, looked.committed):
            on_missing(first, last)
    for first, last in _among(looked.gaps, after, looked.last):
        on_missing(first, last)


class _Part(NamedTuple):
    """A file that has a header or entries: those from `first` on that come before `limit` (None: all).
    `followed` says whether the file that was made next is there."""

    item: Found
    first: int
    limit: int | None
    followed: bool


class _Files(NamedTuple):
    """The journal's files; the `hollow` ones have neither header nor entries. `committed` is what the newest header
    says."""

    journal: UUID
    database: UUID | None
    seed: int
    committed: int
    found: Sequence[Found]
    parts: Sequence[_Part]
    hollow: Sequence[Found]


class _Reading:
    """One part read from end to end, by the rules of `ingestor.journal.scan`: `missing` are ranges of positions,
    `last` is the last good entry's, `hint` what the last cursor said; the rest is what was counted."""

    def __init__(self, part: _Part) -> None:
        self.part = part
        self.good = self.pending = self.pending_metrics = 0
        self.oldest_pending_us: int | None = None
        self.missing: list[tuple[int, int]] = []
        self.bad: list[BadBytes] = []
        self.last = part.first - 1
        self.hint: int | None = None

    def entries(self, directory: Directory, seed: int) -> Iterator[Frame]:
        """The good ones, in order. The rest is known when they have all been taken."""
        try:
            file = directory.open_file(self.part.item.name)
        except FileNotFoundError:
            return  # removed meanwhile, so it was committed
        try:
            yield from self._entries(file, seed)
        finally:
            file.close()

    def _entries(self, file: File, seed: int) -> Iterator[Frame]:
        item, limit = self.part.item, self.part.limit
        bad: list[Bad] = []
        if item.header is None:
            self._note([Bad(0, HEADER_BYTES)], torn=False)
        for frame in walk(file, seed, HEADER_BYTES, item.size_bytes):
            if isinstance(frame, Bad):
                bad.append(frame)
                continue
            position = frame.head.position
            if frame.head.kind == CURSOR:
                self.hint = position
            elif limit is not None and position >= limit:
                break  # void, and so is what comes behind it
            elif position <= self.last:
                bad.append(Bad(frame.offset, frame.end))
                continue
            else:
                if position > self.last + 1:
                    self.missing.append((self.last + 1, position - 1))
                self.last = position
                yield frame
            # Bytes before a good frame are damage, whatever they were.
            self._note(bad, torn=False)
            bad.clear()
        cut_off = limit is not None and self.last + 1 < limit
        if limit is not None and cut_off:
            self.missing.append((self.last + 1, limit - 1))
        # With all positions there, what lies behind them is of a write that failed, and was made good in the next
        # file.
        self._note(bad, torn=not cut_off)

    def count(self, head: Head, committed: int) -> None:
        """One of the good entries."""
        self.good += 1
        if head.position > committed:
            self.pending += 1
            self.pending_metrics += head.rows
            if self.oldest_pending_us is None:
                self.oldest_pending_us = head.taken_at_us

    def holes(self) -> Iterator[tuple[int, int]]:
        """What is missing, but for files that were removed from behind a damaged one, which is kept: when they were
        committed."""
        for first, last in self.missing:
            if last + 1 != self.part.limit or self.part.followed:
                yield first, last

    def _note(self, bad: Sequence[Bad], *, torn: bool) -> None:
        self.bad += [BadBytes(self.part.item.name, each.offset, each.end, torn) for each in bad]


def _files(directory: Directory) -> _Files | None:
    """What is there; None when there is no journal. Raises JournalProblem, OSError."""
    found = take_inventory(directory)
    if found and found[-1].cut_short:
        found.pop()  # it is only just being made
    if not found:
        return None
    journal, database = identity(directory, found)
    seed = frames.seed(journal)
    headers = [item.header for item in found if item.header is not None]
    committed = headers[-1].committed if headers else 0
    sequences = {item.sequence for item in found}
    parts: list[_Part] = []
    hollow: list[Found] = []
    limit: int | None = None
    for item in reversed(found):
        if item.header is not None:
            first, previous = item.header.first, item.header.previous
        elif (found_first := _first(directory, item, seed)) is not None:
            first, previous = found_first, found_first - 1
        else:
            hollow.append(item)
            continue
        parts.append(
            _Part(item, first if limit is None else min(first, limit), limit, item.sequence + 1 in sequences)
        )
        # The entries of each file end with the position that later ones follow.
        limit = previous + 1 if limit is None else min(limit, previous + 1)
    return _Files(journal, database, seed, committed, found, parts[::-1], hollow[::-1])


def _last_cursor(directory: Directory, part: _Part, files: _Files) -> int:
    """What the file's last cursor says, or the newest header."""
    reading = _Reading(part)
    for _ in reading.entries(directory, files.seed):
        pass
    return files.committed if reading.hint is None else reading.hint


def _first(directory: Directory, item: Found, seed: int) -> int | None:
    """The first entry of a file without a header; None without one."""
    try:
        file = directory.open_file(item.name)
    except FileNotFoundError:
        return None
    try:
        first = first_entry(file, seed, item.size_bytes)
    finally:
        file.close()
    if first is None and item.foreign:
        raise not_ours(directory, item.name)
    return first


def _among(ranges: Iterable[tuple[int, int]], after: int, end: int) -> Iterator[tuple[int, int]]:
    """What of these lies behind `after` and up to `end`."""
    for first, last in ranges:
        if last > after and first <= end:
            within = max(first, after + 1), min(last, end)
            if within[0] <= within[1]:
                yield within


def _add(told: Survey, reading: _Reading) -> None:
    told.bad += reading.bad
    told.gaps += [
        (max(first, told.committed + 1), last) for first, last in reading.missing if last > told.committed
    ]
    told.last = max(reading.last, told.committed)
    told.entries += reading.good
    told.pending_entries += reading.pending
    told.pending_metrics += reading.pending_metrics
    if told.oldest_pending_us is None:
        told.oldest_pending_us = reading.oldest_pending_us


def _add_hollow(told: Survey, files: _Files) -> None:
    """Files without header and entries: the newest had some, and how many nobody can say."""
    newest = files.parts[-1].item.sequence if files.parts else 0
    for item in files.hollow:
        if item.sequence > newest:
            told.last += 1
            told.gaps.append((told.last, told.last))
        elif item.size_bytes <= HEADER_BYTES:
            continue  # a remnant of a start that failed
        told.bad.append(BadBytes(item.name, 0, item.size_bytes, torn=False))
