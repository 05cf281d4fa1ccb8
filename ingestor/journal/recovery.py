"""What opening the journal finds, and what it makes of damage.

It refuses to guess: what isn't this journal's stops the start, and whatever is missing is named by its positions.
What is amiss is said by `ingestor.journal.parts`.

1. Names and headers are read; the newest header says whose journal it is.
2. The last segment is read whole. A torn end is cut off: it was never acknowledged. Its last cursor says up to
   where all was committed (or less: it is a hint).
3. Earlier segments are read whole where they hold anything behind that. What is committed is left alone.
4. A file with bad bytes before good ones, or without entries that it must have had, is set aside: renamed, and
   kept for ever. What is good in it stays part of the log for as long as it would if it were whole; where that
   would be removed, the file is renamed once more (`ingestor.journal.retention`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID, uuid4

from loguru import logger

from ingestor.journal.files import Directory, File
from ingestor.journal.inventory import take_inventory
from ingestor.journal.parts import Gap, Part, Parts, arrange, take_unfinished
from ingestor.journal.scan import Scan
from ingestor.journal.segments import DAMAGED, Segment, is_set_aside
from ingestor.journal.tail import Tail


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
        elif is_set_aside(gap.file):
            # When that was done the file was the newest, perhaps, and this doubtful.
            logger.error(
                "the journal's {} lacks entries {} to {}: they are lost, or were never acknowledged (see what was"
                " told when the file was set aside)",
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


def set_aside(directory: Directory, name: str, recovery: Recovery) -> str:
    """Renames a damaged file, so that nobody removes it; goes on without when that can't be done. Returns what it
    is called now."""
    if is_set_aside(name):
        return name
    new = name + DAMAGED
    try:
        directory.rename(name, new)
        logger.error("the journal's damaged {} was set aside as {}: it is kept", name, new)
        name = new
        recovery.damaged.append(new)
        directory.sync()
    except OSError as error:
        logger.error("the journal's damaged {} can't be set aside: {}", name, error)
    return name


class _Recoverer:
    def __init__(self, directory: Directory, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._recovery = Recovery()
        self._hint = 0
        self._last = 0

    def run(self) -> Recovered:
        found = take_inventory(self._directory)
        sequence = found[-1].sequence if found else 0
        if unfinished := take_unfinished(found):
            self._remove(unfinished.name)
        if not found:
            return self._fresh(sequence)
        parts = arrange(self._directory, found)
        self._recovery.damaged = [item.name for item in found if item.damaged]
        tail = Tail(self._directory, parts.journal, parts.database, sequence, self._clock)
        segments = [_segment(part) for part in parts.held]
        if segments:
            self._read_newest(parts, segments[-1], tail)
            for part, segment in zip(parts.held[:-1], segments, strict=False):
                self._read_sealed(parts, part, segment)
            self._last = max(self._last, segments[-1].last, self._hint)
        self._settle_hollow(parts)
        if not segments or self._last != segments[-1].last:
            tail.distrust()
        self._directory.sync()
        self._note_passed(segments)
        return Recovered(parts.journal, segments, tail, self._last, self._hint, self._recovery)

    def _fresh(self, sequence: int) -> Recovered:
        journal = uuid4()
        tail = Tail(self._directory, journal, None, sequence, self._clock)
        return Recovered(journal, [tail.roll(1, 0, 0)], tail, 0, 0, self._recovery)

    def _read_newest(self, parts: Parts, segment: Segment, tail: Tail) -> None:
        """Reads it, cuts off what is torn, and has the tail go on in it where that is possible."""
        newest = parts.parts[-1]
        file = self._directory.open_file(segment.name)
        scan = _read(file, parts.seed, newest, segment)
        self._hint = parts.committed_by(scan)
        lost = self._lost(parts, newest, scan)
        file.sync()  # of what is read from here on, all is on the disk
        damaged = parts.is_damaged(newest, scan, lost) or segment.damaged
        self._last = max((gap.last for gap in lost), default=0)
        tail.adopt(segment, file, trusted=not damaged)
        if damaged:
            segment.name = set_aside(self._directory, segment.name, self._recovery)
        elif torn_bytes := segment.size_bytes - segment.end:
            self._recovery.torn_bytes = torn_bytes
            logger.warning("the journal's {} ends in {} torn bytes: cut off", segment.name, torn_bytes)
            self._cut(tail)

    def _cut(self, tail: Tail) -> None:
        try:
            tail.cut(force=True)
        except OSError as error:
            logger.warning("they can't be cut off, so a new file will be begun: {}", error)

    def _read_sealed(self, parts: Parts, part: Part, segment: Segment) -> None:
        """Reads an earlier segment, if it holds anything that isn't committed."""
        if part.limit is not None and part.ends_by(self._hint):
            segment.last, segment.end = part.limit - 1, segment.size_bytes
            return
        file = self._directory.open_file(segment.name)
        try:
            scan = _read(file, parts.seed, part, segment)
        finally:
            file.close()
        lost = self._lost(parts, part, scan)
        if parts.is_damaged(part, scan, lost):
            segment.name = set_aside(self._directory, segment.name, self._recovery)

    def _settle_hollow(self, parts: Parts) -> None:
        """Files without header and entries: remnants of a start that failed, or damaged beyond use."""
        for item in parts.hollow:
            if parts.is_remnant(item, self._recovery.gaps):
                self._remove(item.name)
                continue
            if parts.is_newest(item):
                self._last += 1
                self._recovery.lose(Gap(self._last, self._last, item.name))
            set_aside(self._directory, item.name, self._recovery)

    def _lost(self, parts: Parts, part: Part, scan: Scan) -> list[Gap]:
        """What of the part is; reports it."""
        lost = parts.lost(part, scan, self._hint)
        for gap in lost:
            self._recovery.lose(gap)
        return lost

    def _remove(self, name: str) -> None:
        logger.info("the journal's {} was only just being made when the process ended: removed", name)
        self._directory.unlink(name)
        self._directory.sync()

    def _note_passed(self, segments: list[Segment]) -> None:
        """When the cursor passed each segment, but for the last, into which more may come: when the first header
        was written that knows it, or just now."""
        now_s = self._clock()
        for at, segment in enumerate(segments[:-1]):
            if segment.last <= self._hint:
                later = (other.header for other in segments[at + 1 :] if not other.headless)
                known = (header.created_us / 1e6 for header in later if header.committed >= segment.last)
                segment.passed_at_s = min(next(known, now_s), now_s)


def _segment(part: Part) -> Segment:
    segment = Segment(part.found.name, part.header, part.found.size_bytes)
    segment.first, segment.last = part.first, part.first - 1
    segment.headless = part.headless
    return segment


def _read(file: File, seed: int, part: Part, segment: Segment) -> Scan:
    """Reads all of it, and fills in what the segment has."""
    scan = part.scan()
    for frame in scan.entries(file, seed, segment.size_bytes):
        segment.mark(frame.head.position, frame.offset)
    segment.last, segment.end = scan.last, scan.end
    return scan
