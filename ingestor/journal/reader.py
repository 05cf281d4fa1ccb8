"""Entries in the order of their positions, from the segments that hold them.

It refuses to give out what nobody synced, and to pass over something that is missing without saying so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ingestor.journal.files import Directory, File
from ingestor.journal.frames import ENTRY, HEADER_BYTES
from ingestor.journal.parts import Gap
from ingestor.journal.recovery import Recovery, set_aside
from ingestor.journal.segments import Frame, Segment, walk
from ingestor.journal.tail import Tail


class _Place(NamedTuple):
    """The entry behind `after` begins at this offset, or later."""

    after: int
    segment: Segment
    offset: int


class Reader:
    """Reads on where it ended: that place is remembered, and its file kept open."""

    def __init__(
        self, directory: Directory, seed: int, segments: list[Segment], tail: Tail, recovery: Recovery
    ) -> None:
        self._directory = directory
        self._seed = seed
        self._segments = segments
        self._tail = tail
        self._recovery = recovery
        self._place: _Place | None = None
        self._opened: tuple[Segment, File] | None = None

    def entries(self, after: int, last: int, committed: int) -> Iterator[Frame]:
        """The good entries behind `after` up to `last`. What is missing behind `committed` is reported. Raises
        OSError."""
        expected = max(after + 1, next((s.first for s in self._segments if not s.empty), 1))
        for segment, offset in self._from(expected):
            lacking = self._lose(expected, segment.header.previous, committed, segment)
            expected = max(expected, segment.first)  # between the two there never were any
            for frame in self._frames(segment, offset):
                position = frame.head.position
                if position < expected or position > last:
                    continue
                lacking |= self._lose(expected, position - 1, committed, segment)
                expected = position + 1
                self._place = _Place(position, segment, frame.end)
                yield frame
            lacking |= self._lose(expected, min(segment.last, last), committed, segment)
            expected = max(expected, segment.last + 1)
            if lacking:
                self._set_aside(segment)

    def forget(self, segment: Segment) -> None:
        """It is being removed: an open file would keep its bytes on the disk."""
        if self._opened is not None and self._opened[0] is segment:
            self.close()

    def close(self) -> None:
        """Lets go of the file that is being read."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def _frames(self, segment: Segment, offset: int) -> Iterator[Frame]:
        for item in walk(self._file(segment), self._seed, offset, segment.end):
            if isinstance(item, Frame) and item.head.kind == ENTRY and item.head.position <= segment.last:
                yield item

    def _from(self, position: int) -> list[tuple[Segment, int]]:
        """The segments that have it and what follows, and where to begin in each."""
        # One that leapt says so even when nothing of what it had is left.
        behind = [each for each in self._segments if each.last >= position and (not each.empty or each.leaps)]
        places = [(segment, HEADER_BYTES) for segment in behind]
        if not places:
            return []
        place, first = self._place, behind[0]
        if place is not None and place.after + 1 == position and place.segment is first:
            return [(first, place.offset), *places[1:]]
        return [(first, first.offset_before(position)), *places[1:]]

    def _file(self, segment: Segment) -> File:
        if segment is self._tail.segment and self._tail.file is not None:
            return self._tail.file
        if self._opened is None or self._opened[0] is not segment:
            self.close()
            self._opened = segment, self._directory.open_file(segment.name)
        return self._opened[1]

    def _lose(self, first: int, last: int, committed: int, segment: Segment) -> bool:
        """Reports what is missing, unless the database has it or it is known; says whether it did."""
        if last < first or last <= committed:
            return False
        return self._recovery.lose(Gap(first, last, segment.name))

    def _set_aside(self, segment: Segment) -> None:
        if segment is self._tail.segment:
            self._tail.distrust()
        segment.name = set_aside(self._directory, segment.name, self._recovery)
