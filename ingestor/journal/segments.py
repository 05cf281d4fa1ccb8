"""One segment file as the log knows it, and the walk over its frames.

A walk yields good frames only and says where they stand; what is missing between two of them is seen by their
positions. It refuses to end at a bad place as long as a good frame follows.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from ingestor.journal import frames
from ingestor.journal.files import File
from ingestor.journal.frames import ALIGNMENT_BYTES, HEAD_BYTES, HEADER_BYTES, Head, Header

DAMAGED = ".damaged"
_LET_GO = ".committed" + DAMAGED
_NAME = re.compile(r"(\d{12})\.segment((\.committed)?\.damaged)?")
WINDOW_BYTES = 256 * 1024
# So far apart are the places whose offset is remembered: 64k of them for 4 GiB.
_MARK_BYTES = 64 * 1024


def segment_name(sequence: int) -> str:
    """The file's name."""
    return f"{sequence:012}.segment"


def sequence_of(name: str) -> int | None:
    """The sequence that a file's name says; None when it is no segment's name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def is_set_aside(name: str) -> bool:
    """Whether this is what a file is called that is kept for its damage, and never removed by us."""
    return name.endswith(DAMAGED)


def let_go_name(name: str) -> str:
    """What a file that was set aside is called once the log has done with it, as with one that it removes."""
    return name if is_let_go(name) else name.removesuffix(DAMAGED) + _LET_GO


def is_let_go(name: str) -> bool:
    """Whether this is such a name."""
    return name.endswith(_LET_GO)


class Frame(NamedTuple):
    """A good frame, and where it begins."""

    offset: int
    head: Head
    payload: memoryview

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.head.size_bytes

    @property
    def meta(self) -> memoryview:
        """What comes before the body."""
        return self.payload[: self.head.meta_bytes]


class Bad(NamedTuple):
    """Bytes that are no good frame."""

    offset: int
    end: int


class Segment:
    """What is known of one file.

    `first` and `last` are the positions that it is there for (`last` is `first - 1` while it has none), `end`
    is where its valid bytes end, `size_bytes` what it takes on disk, `passed_at_s` when the cursor was seen to
    have passed it. `headless` says that the header was made up, because the file's own can't be read.
    """

    __slots__ = (
        *("_offsets", "_positions", "end", "first", "header", "headless", "last", "name", "passed_at_s"),
        "size_bytes",
    )

    def __init__(self, name: str, header: Header, size_bytes: int) -> None:
        self.name = name
        self.header = header
        self.first = header.first
        self.last = header.first - 1
        self.end = HEADER_BYTES
        self.size_bytes = size_bytes
        self.headless = False
        self.passed_at_s: float | None = None
        self._positions = array("Q")
        self._offsets = array("Q")

    @property
    def damaged(self) -> bool:
        """Whether it was set aside."""
        return is_set_aside(self.name)

    @property
    def empty(self) -> bool:
        """Whether it is there for no position."""
        return self.last < self.first

    @property
    def leaps(self) -> bool:
        """Whether positions were skipped before it."""
        return self.header.previous + 1 < self.header.first

    def mark(self, position: int, offset: int) -> None:
        """Remembers where an entry begins, unless a near one is remembered already."""
        if offset - (self._offsets[-1] if self._offsets else HEADER_BYTES) >= _MARK_BYTES:
            self._positions.append(position)
            self._offsets.append(offset)

    def offset_before(self, position: int) -> int:
        """From where on the entry with this position is found: its offset, or one that is a little less."""
        at = bisect_right(self._positions, position)
        return self._offsets[at - 1] if at else HEADER_BYTES

    def held_bytes(self, committed: int) -> int:
        """Bytes of entries behind that position (up to 64 KiB more, where an entry begins that it remembers)."""
        return 0 if self.last <= committed else self.end - self.offset_before(committed + 1)


def walk(
    file: File, seed: int, start: int, end: int, window_bytes: int = WINDOW_BYTES
) -> Iterator[Frame | Bad]:
    """The good frames between two offsets, and what lies between them. Raises OSError."""
    window, base, offset = b"", start, start
    while offset < end:
        at = offset - base
        if len(window) - at < HEAD_BYTES:
            window, base, at = file.read(offset, min(window_bytes, end - offset)), offset, 0
        head = frames.decode_head(seed, window, at)
        if head is None or offset + head.size_bytes > end:
            found = _search(file, seed, offset + ALIGNMENT_BYTES, end)
            yield Bad(offset, found)
            offset = found
            continue
        size = head.size_bytes
        if at + size > len(window):
            window, base, at = file.read(offset, min(max(window_bytes, size), end - offset)), offset, 0
        payload = memoryview(window)[at + HEAD_BYTES : at + size]
        if frames.is_sound(seed, head, payload):
            yield Frame(offset, head, payload)
        else:
            yield Bad(offset, offset + size)
        offset += size


def _search(file: File, seed: int, start: int, end: int) -> int:
    """Where the next good head begins; `end` when there is none."""
    offset = start
    while offset < end:
        window = file.read(offset, min(WINDOW_BYTES, end - offset))
        at = window.find(frames.MARKER)
        while at >= 0:
            place = offset + at
            if place % ALIGNMENT_BYTES == 0 and _is_head(
                file, seed, window[at : at + HEAD_BYTES], place, end
            ):
                return place
            at = window.find(frames.MARKER, at + 1)
        # A marker may lie across the windows' border.
        offset += max(len(window) - len(frames.MARKER) + 1, 1) if len(window) == WINDOW_BYTES else end
    return end


def _is_head(file: File, seed: int, data: bytes, place: int, end: int) -> bool:
    if len(data) < HEAD_BYTES:  # the window's end
        data = file.read(place, min(HEAD_BYTES, end - place))
    head = frames.decode_head(seed, data)
    return head is not None and place + head.size_bytes <= end
