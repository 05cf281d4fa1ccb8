"""What opening the journal finds, and what it makes of damage.

It refuses to guess: what isn't this journal's stops the start, and whatever is missing is named by its positions.

1. Names and headers are read; the newest header says whose journal it is.
2. The last segment is read whole. A torn end is cut off: it was never acknowledged. Its last cursor says up to
   where all was committed (or less: it is a hint).
3. Earlier segments are read whole where they hold anything behind that. What is committed is left alone.
4. A file with bad bytes before good ones, or without entries that it must have had, is set aside: renamed, and
   kept for ever. What is good in it stays part of the log for as long as it would if it were whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID, uuid4

from loguru import logger

from ingestor.journal.files import Directory
from ingestor.journal.frames import Header, seed
from ingestor.journal.inventory import Found, identity, not_ours, take_inventory
from ingestor.journal.scan import Scan, first_entry, scan
from ingestor.journal.segments import DAMAGED, Segment
from ingestor.journal.tail import Tail


class Gap(NamedTuple):
    """Entries that can't be read any more. `doubtful` ones were written in the journal's very last append: if
    the power failed in the middle of it, they had never been acknowledged."""

    first: int
    last: int
    file: str
    doubtful: bool = False


@dataclass
class Recovery:
    """What was found amiss: `torn_bytes` that were cut off, `gaps` among what isn't known to be committed,
    files that are `damaged` and kept. Grows when damage is met later."""

    torn_bytes: int = 0
    gaps: list[Gap] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def note(self, gap: Gap) -> bool:
        """Adds it, unless it is known; says whether it did."""
        if any(known.first <= gap.first and gap.last <= known.last for known in self.gaps):
            return False
        self.gaps.append(gap)
        return True

    def lose(self, gap: Gap) -> bool:
        """Notes and reports it, unless it is known; says whether it did."""
        if not self.note(gap):
            return False
        if gap.doubtful:
            logger.warning(
                "the journal's {} lacks entries {} to {}, of its last append: most likely the power failed in the"
                " middle of it, and they were never acknowledged",
                *(gap.file, gap.first, gap.last),
            )
        else:
            logger.error(
                "the journal's {} is damaged or missing: its entries {} to {} are lost",
                *(gap.file, gap.first, gap.last),
            )
        return True


class Recovered(NamedTuple):
    """What the log begins with."""

    journal: UUID
    segments: list[Segment]
    tail: Tail
    last: int
    committed: int
    recovery: Recovery


def recover(directory: Directory, clock: Callable[[], float]) -> Recovered:
    """Reads what is there, and mends what can be. Raises JournalProblem, OSError."""
    return _Recoverer(directory, clock).run()


def set_aside(directory: Directory, segment: Segment, recovery: Recovery) -> None:
    """Renames a damaged file, so that nobody removes it; goes on without when that can't be done."""
    if segment.damaged:
        return
    new = segment.name + DAMAGED
    try:
        directory.rename(segment.name, new)
        logger.error("the journal's damaged {} was set aside as {}: it is kept", segment.name, new)
        segment.name = new
        recovery.damaged.append(new)
        directory.sync()
    except OSError as error:
        logger.error("the journal's damaged {} can't be set aside: {}", segment.name, error)


class _Recoverer:
    def __init__(self, directory: Directory, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._recovery = Recovery()
        self._hint = 0
        self._seed = 0
        self._last = 0

    def run(self) -> Recovered:
        found = take_inventory(self._directory)
        sequence = found[-1].sequence if found else 0
        if found and found[-1].cut_short:
            self._remove(found.pop().name)
        if not found:
            return self._fresh(sequence)
        journal, database = identity(self._directory, found)
        self._seed = seed(journal)
        self._recovery.damaged = [item.name for item in found if item.name.endswith(DAMAGED)]
        tail = Tail(self._directory, journal, database, sequence, self._clock)
        segments, hollow = self._segments(found, journal)
        if segments:
            headed = [segment.header for segment in segments if not segment.headless]
            limits = _bounded(segments)
            self._hint = headed[-1].committed if headed else 0
            self._read_last(segments[-1], tail)
            for at, segment in enumerate(segments[:-1]):
                self._read_sealed(segment, limits[at], segments[at + 1].header.sequence, hollow)
            self._last = max(segments[-1].last, self._hint)
        self._settle_hollow(hollow, segments)
        if not segments or self._last != segments[-1].last:
            tail.distrust()
        self._directory.sync()
        self._note_passed(segments)
        return Recovered(journal, segments, tail, self._last, self._hint, self._recovery)

    def _fresh(self, sequence: int) -> Recovered:
        journal = uuid4()
        tail = Tail(self._directory, journal, None, sequence, self._clock)
        return Recovered(journal, [tail.roll(1, 0, 0)], tail, 0, 0, self._recovery)

    def _segments(self, found: list[Found], journal: UUID) -> tuple[list[Segment], list[Segment]]:
        """Those that have a header or entries, and those that have neither."""
        segments: list[Segment] = []
        hollow: list[Segment] = []
        for item in found:
            header, entries = item.header, True
            if header is None:
                first = self._first_entry(item)
                entries = first is not None
                if first is None and item.foreign:
                    raise not_ours(self._directory, item.name)
                first = first or 1
                header = Header(journal, None, item.sequence, first, first - 1, 0, 0)
            segment = Segment(item.name, header, item.size_bytes)
            segment.headless = item.header is None
            (hollow if segment.headless and not entries else segments).append(segment)
        return segments, hollow

    def _first_entry(self, item: Found) -> int | None:
        file = self._directory.open_file(item.name)
        try:
            return first_entry(file, self._seed, item.size_bytes)
        finally:
            file.close()

    def _read_last(self, segment: Segment, tail: Tail) -> None:
        """Reads it, cuts off what is torn, and has the tail go on in it where that is possible."""
        file = self._directory.open_file(segment.name)
        result = scan(file, self._seed, segment, None)
        if result.hint is not None:
            self._hint = result.hint
        for first, last in result.missing:
            self._lose(first, last, segment.name, doubtful=first >= result.append_first)
        file.sync()  # of what is read from here on, all is on the disk
        damaged = result.scarred or segment.headless or segment.damaged
        tail.adopt(segment, file, trusted=not damaged)
        if damaged:
            set_aside(self._directory, segment, self._recovery)
        elif torn_bytes := segment.size_bytes - segment.end:
            self._recovery.torn_bytes = torn_bytes
            logger.warning("the journal's {} ends in {} torn bytes: cut off", segment.name, torn_bytes)
            self._cut(tail)

    def _cut(self, tail: Tail) -> None:
        try:
            tail.cut(force=True)
        except OSError as error:
            logger.warning("they can't be cut off, so a new file will be begun: {}", error)

    def _read_sealed(self, segment: Segment, limit: int, next_sequence: int, hollow: list[Segment]) -> None:
        """Reads an earlier segment, if it holds anything that isn't committed."""
        if limit - 1 <= self._hint:
            segment.last, segment.end = max(limit, segment.first) - 1, segment.size_bytes
            return
        file = self._directory.open_file(segment.name)
        try:
            result = scan(file, self._seed, segment, limit)
        finally:
            file.close()
        damaged = result.scarred or segment.headless
        for first, last in result.missing:
            self._lose(first, last, segment.name)
        if segment.last + 1 < limit:
            blamed = self._blamed(segment, result, next_sequence, hollow)
            damaged = damaged or blamed == segment.name
            self._lose(segment.last + 1, limit - 1, blamed)
        if damaged:
            set_aside(self._directory, segment, self._recovery)

    def _blamed(self, segment: Segment, result: Scan, next_sequence: int, hollow: list[Segment]) -> str:
        """The file that had the entries which are missing behind a segment's good ones."""
        sequence = segment.header.sequence
        if not result.bad_at_end:
            for other in hollow:
                if sequence < other.header.sequence < next_sequence:
                    return other.name
            if sequence + 1 < next_sequence:
                return f"{sequence + 1:012}.segment"
        return segment.name

    def _settle_hollow(self, hollow: list[Segment], segments: list[Segment]) -> None:
        """Files without header and entries: remnants of a start that failed, or damaged beyond use."""
        newest = segments[-1].header.sequence if segments else 0
        for segment in hollow:
            if segment.header.sequence > newest:
                # How many it had nobody can say.
                self._last += 1
                self._lose(self._last, self._last, segment.name)
            elif segment.size_bytes <= segment.end and not self._blamed_before(segment):
                self._remove(segment.name)
                continue
            set_aside(self._directory, segment, self._recovery)

    def _blamed_before(self, segment: Segment) -> bool:
        return any(gap.file == segment.name for gap in self._recovery.gaps)

    def _lose(self, first: int, last: int, name: str, *, doubtful: bool = False) -> None:
        if last > self._hint:
            self._recovery.lose(Gap(first, last, name, doubtful))

    def _remove(self, name: str) -> None:
        logger.info("the journal's {} was only just being made when the process ended: removed", name)
        self._directory.unlink(name)
        self._directory.sync()

    def _note_passed(self, segments: list[Segment]) -> None:
        """When the cursor passed each segment: when the first header was written that knows it, or just now."""
        now_s = self._clock()
        for at, segment in enumerate(segments):
            if segment.last <= self._hint:
                later = (other.header for other in segments[at + 1 :] if not other.headless)
                known = (header.created_us / 1e6 for header in later if header.committed >= segment.last)
                segment.passed_at_s = min(next(known, now_s), now_s)


def _bounded(segments: list[Segment]) -> list[int]:
    """Where each but the last ends: with what those behind it follow. What an earlier one has from there on is
    void, and was written again."""
    limits: list[int] = []
    limit = segments[-1].header.previous + 1
    for segment in reversed(segments[:-1]):
        limits.append(limit)
        segment.first = min(limit, segment.first)
        segment.last = segment.first - 1
        limit = min(limit, segment.header.previous + 1)
    return limits[::-1]
