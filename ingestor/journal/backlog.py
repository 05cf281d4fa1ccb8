"""What is durable and not read yet: the oldest part of it in memory, what does not fit there on disk alone.

It touches no file; it says what has to be read from one. It never holds more than its bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ingestor.model import Entry
from ingestor.model.delivery import NOTHING

TAIL_BYTES_MAX = 4 * 1024**2
# Of what lies on disk alone, how old it is is known to the second.
_MARK_S = 1.0
_MARKS_MAX = 100_000
_LONG_AGO_S = 1e9


class Mark(NamedTuple):
    """The entry at `position` was taken then (monotonic seconds)."""

    position: int
    taken_at_s: float


class Marks:
    """When entries were taken, some of them: the oldest, and one for each second from there on."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=_MARKS_MAX)

    def add(self, position: int, taken_at_s: float) -> None:
        """Positions never decrease."""
        if not self._marks or taken_at_s > self._marks[-1].taken_at_s + _MARK_S:
            self._marks.append(Mark(position, taken_at_s))

    def passed(self, position: int) -> None:
        """Up to here, all is read. The last mark that was passed is kept: it stands for what follows it."""
        while len(self._marks) > 1 and self._marks[1].position <= position:
            self._marks.popleft()

    def oldest_s(self) -> float | None:
        """When the oldest was taken, within a second."""
        return self._marks[0].taken_at_s if self._marks else None


class Backlog:
    """Positions up to `read_to` were read, up to `last` are durable. `spilled`: what follows the entries in
    memory is on disk alone; `waiting_rows` counts both."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.read_to = NOTHING
        self.spilled = False
        self.waiting_rows = 0
        self._tail: deque[Entry] = deque()
        self._tail_bytes = 0
        self._marks = Marks()

    @property
    def entries(self) -> int:
        """How many are in memory."""
        return len(self._tail)

    @property
    def size_bytes(self) -> int:
        """What these take."""
        return self._tail_bytes

    def add(self, entry: Entry) -> None:
        """This one has become durable, behind all others."""
        self.last = entry.position
        self.waiting_rows += entry.batch.rows
        if not self.spilled and self._tail_bytes + entry.batch.size_bytes <= TAIL_BYTES_MAX:
            self._tail.append(entry)
            self._tail_bytes += entry.batch.size_bytes
            return
        self.spilled = True
        self._marks.add(entry.position, entry.taken_at_s)

    def take(self, rows_max: int) -> list[Entry]:
        """The oldest in memory, until so many rows are read; none when they are on disk alone."""
        entries: list[Entry] = []
        rows = 0
        while self._tail and rows < rows_max:
            entry = self._tail.popleft()
            rows += entry.batch.rows
            self._tail_bytes -= entry.batch.size_bytes
            entries.append(entry)
        self._passed(entries)
        return entries

    def read(self, entries: Sequence[Entry]) -> int:
        """These, which follow `read_to`, were read from disk, or none are left there. Returns how many rows are
        missing, if all has been read and some were not there: then they do not wait any more."""
        self._passed(entries)
        if entries and entries[-1].position != self.last and self.waiting_rows:
            return 0
        # Caught up; nothing was added in memory meanwhile.
        self.spilled = False
        self._marks = Marks()
        self.read_to = self.last
        missing, self.waiting_rows = self.waiting_rows, 0
        return missing

    def leapt(self, position: int) -> None:
        """What comes next gets the position behind this one."""
        if self.read_to == self.last:
            self.read_to = position
        self.last = position

    def restart(self, position: int, rows: int, marks: Marks) -> None:
        """What is durable behind `position`, so many rows, is unread, and is read from disk."""
        self._tail.clear()
        self._tail_bytes = 0
        self._marks = marks
        self.last = max(self.last, position)
        self.read_to = position if rows else self.last
        self.spilled = rows > 0
        self.waiting_rows = rows

    def age_s(self, now_s: float) -> float:
        """Seconds that the oldest has waited to be read; 0 without any. What is on disk waits for nothing but
        us."""
        if self._tail:
            return now_s - self._tail[0].taken_at_s
        return _LONG_AGO_S if self.spilled else 0.0

    def oldest_s(self) -> float | None:
        """When the oldest was taken."""
        return self._tail[0].taken_at_s if self._tail else self._marks.oldest_s()

    def _passed(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.waiting_rows -= entry.batch.rows
            self.read_to = entry.position
        if not self.waiting_rows:
            self.read_to = self.last  # it may have leapt since
        self._marks.passed(self.read_to)
