"""Which entries each of a journal's files is there for, and what is amiss with it: how a journal is read.

By these rules the start reads, which mends what it finds (`recovery`), and who only looks (`survey`). They change
no file, and refuse to guess whose one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple
from uuid import UUID

from ingestor.journal import frames
from ingestor.journal.files import Directory
from ingestor.journal.frames import HEADER_BYTES, Header
from ingestor.journal.inventory import Found, identity, not_ours
from ingestor.journal.scan import Scan, first_entry
from ingestor.journal.segments import segment_name


class Gap(NamedTuple):
    """Entries that can't be read any more. `doubtful` ones were written in the journal's very last append: if
    the power failed in the middle of it, they had never been acknowledged."""

    first: int
    last: int
    file: str
    doubtful: bool = False


class Part(NamedTuple):
    """A file that has a header or entries: those from `first` on that come before `limit` (None: all, there is no
    later part). `next_sequence` is the later part's. `header` is made up where the file's own can't be read.
    One that is `let_go` is kept for its damage alone: it or a later file was renamed once the database was past all
    that they had, be it lost, and the log has it no more."""

    found: Found
    header: Header
    first: int
    limit: int | None
    next_sequence: int
    let_go: bool

    @property
    def headless(self) -> bool:
        """Whether its header is made up."""
        return self.found.header is None

    def ends_by(self, position: int) -> bool:
        """Whether all that it is there for lies up to this position."""
        return self.limit is not None and self.limit - 1 <= position

    def scan(self) -> Scan:
        """With which to read it."""
        return Scan(self.first, self.limit)


class Parts(NamedTuple):
    """The journal's files, oldest first; the `hollow` ones have neither header nor entries. `committed` is what
    the newest header says."""

    journal: UUID
    database: UUID | None
    seed: int
    committed: int
    parts: Sequence[Part]
    hollow: Sequence[Found]

    @property
    def held(self) -> Sequence[Part]:
        """Those that the log has: one at least, where there is any part."""
        return [part for part in self.parts if not part.let_go]

    def committed_by(self, newest: Scan) -> int:
        """Up to where all was committed, or less: what the last cursor says, or the newest header. What was removed
        had been, whatever they say; but nothing counts as removed where a damaged file may have had it."""
        return max(self._removed_to(), self.committed if newest.hint is None else newest.hint)

    def gaps(self, part: Part, scan: Scan) -> list[Gap]:
        """What is missing of the part's entries, in order."""
        name, newest = part.found.name, part.limit is None
        gaps = [
            Gap(first, last, name, doubtful=newest and first >= scan.append_first)
            for first, last in scan.missing
        ]
        if newest and scan.lost_end:
            gaps.append(Gap(scan.last + 1, scan.last + 1, name, doubtful=True))
        if part.limit is not None and scan.cut_off:
            gaps.append(Gap(scan.last + 1, part.limit - 1, self._blamed(part, scan)))
        return gaps

    def lost(self, part: Part, scan: Scan, committed: int) -> list[Gap]:
        """Its gaps that aren't known to be committed."""
        return [gap for gap in self.gaps(part, scan) if gap.last > committed and not part.let_go]

    def is_damaged(self, part: Part, scan: Scan, lost: Iterable[Gap]) -> bool:
        """Whether the part is to be kept, given what of it is lost."""
        return scan.scarred or part.headless or any(gap.file == part.found.name for gap in lost)

    def is_newest(self, hollow: Found) -> bool:
        """Whether no part is newer: then it had entries, and how many nobody can say."""
        return not self.parts or hollow.sequence > self.parts[-1].found.sequence

    def is_remnant(self, hollow: Found, lost: Iterable[Gap]) -> bool:
        """Whether it is what a start that failed has left, and nothing is missing in its place."""
        short = hollow.size_bytes <= HEADER_BYTES and not hollow.damaged
        return short and all(gap.file != hollow.name for gap in lost)

    def _removed_to(self) -> int:
        """The last position before the oldest part that is there for any; 0 when a damaged file may have had what
        stands before it."""
        oldest = next(part for part in self.held if part.limit is None or part.limit > part.first)
        let_go_to = max((part.found.sequence for part in self.parts if part.let_go), default=0)
        if oldest.headless or any(
            let_go_to < hollow.sequence < oldest.found.sequence and not self.is_remnant(hollow, ())
            for hollow in self.hollow
        ):
            return 0
        return oldest.header.previous

    def _blamed(self, part: Part, scan: Scan) -> str:
        """The file that had what is missing behind the part's good entries."""
        sequence = part.found.sequence
        if not scan.bad_at_end:
            for other in self.hollow:
                if sequence < other.sequence < part.next_sequence:
                    return other.name
            if sequence + 1 < part.next_sequence:
                return segment_name(sequence + 1)
        return part.found.name


def take_unfinished(found: list[Found]) -> Found | None:
    """The newest file, if it was only just being made: it is no part of the journal, and taken off the list."""
    return found.pop() if found and found[-1].cut_short else None


def arrange(directory: Directory, found: Sequence[Found]) -> Parts:
    """From what an inventory found, which is something. Raises JournalProblem, OSError."""
    journal, database = identity(directory, found)
    seed = frames.seed(journal)
    headed: list[tuple[Found, Header]] = []
    hollow: list[Found] = []
    for item in found:
        with suppress(FileNotFoundError):  # a server that uses it has removed it meanwhile
            header = item.header or _made_up(directory, journal, seed, item)
            if header is None:
                hollow.append(item)
            else:
                headed.append((item, header))
    own = [item.header.committed for item in found if item.header is not None]
    return Parts(journal, database, seed, own[-1] if own else 0, _bounded(headed), hollow)


def _bounded(headed: Sequence[tuple[Found, Header]]) -> list[Part]:
    """Each part ends with what those behind it follow. What an earlier one has from there on is void, and was
    written again. Of the oldest, all up to the last that was let go were; never the newest, which says where the
    journal goes on."""
    parts: list[Part] = []
    limit: int | None = None
    next_sequence = 0
    let_go = False
    for item, header in reversed(headed):
        first = header.first if limit is None else min(header.first, limit)
        let_go = let_go or (item.let_go and limit is not None)
        parts.append(Part(item, header, first, limit, next_sequence, let_go))
        limit = header.previous + 1 if limit is None else min(limit, header.previous + 1)
        next_sequence = item.sequence
    return parts[::-1]


def _made_up(directory: Directory, journal: UUID, seed: int, item: Found) -> Header | None:
    """From the first entry of a file whose header can't be read; None without one."""
    file = directory.open_file(item.name)
    try:
        first = first_entry(file, seed, item.size_bytes)
    finally:
        file.close()
    if first is not None:
        return Header(journal, None, item.sequence, first, first - 1, 0, 0)
    if item.foreign:
        raise not_ours(directory, item.name)
    return None
