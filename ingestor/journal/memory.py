"""The bounded queue between those who are acknowledged and the one who stores: the first design's channel.

It never takes half a request, never forgets what it took before `settle` says that it is stored, and never
grows past its bounds. What it holds is gone when the process dies.

Invariants, all on one event loop:
- rows and bytes in `_waiting` and in flight together stay within the limits;
- entries leave in the order in which they were taken (positions increase by one);
- an offer that ends in an error took nothing;
- while somebody waits for room nobody who comes later gets in (no starvation of large requests).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ingestor.errors import Invalid, Overloaded, Unavailable
from ingestor.model import MetricBatch

# What a refused caller is told: by then a flush or two have made room, if the database takes them at all.
_RETRY_AFTER_S = 1.0


# Taking them out, and letting go of them later, takes some 7 ms each.
_ENTRIES_READ_MAX = 50_000


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """`rows` and `bytes` bound what waits or is in flight, `waiting_bytes` those who still wait for room;
    `admission_wait_s` is how long they do (0: not at all)."""

    rows: int
    bytes: int
    waiting_bytes: int
    admission_wait_s: float


class Entry(NamedTuple):
    """What one request left: its place in the order, its rows, and when it was taken (monotonic seconds)."""

    position: int
    batch: MetricBatch
    taken_at_s: float


class _Read(NamedTuple):
    """So many entries were read at once; the first of them was taken at `oldest_s` (monotonic seconds)."""

    entries: int
    oldest_s: float


class MemoryJournal:
    """The queue. Offers come from many tasks, `wait`, `read` and `settle` from one."""

    def __init__(
        self,
        limits: QueueLimits,
        *,
        on_taken: Callable[[int], object] = lambda rows: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_taken` hears of each batch that is taken, by its number of rows."""
        self._limits = limits
        self._on_taken = on_taken
        self._clock = clock
        self._entries: deque[Entry] = deque()
        # Who waits for room, first come first; a dict, so that one who gives up leaves at no cost.
        self._waiters: dict[asyncio.Future[None], MetricBatch] = {}
        self._waiters_bytes = 0
        self._position = 0
        self._waiting_rows = 0
        self._held_rows = 0
        self._held_bytes = 0
        self._closed = False
        self._hurried = False
        self._refused = False
        # What was read at once and is not settled yet, oldest first.
        self._read: deque[_Read] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._reader_rows = 0

    @property
    def waiting_rows(self) -> int:
        """Rows that nobody has read yet."""
        return self._waiting_rows

    @property
    def held_rows(self) -> int:
        """Rows that count against the bound: waiting, or read and not settled."""
        return self._held_rows

    @property
    def held_entries(self) -> int:
        """Entries that wait, or are read and not settled."""
        return len(self._entries) + sum(read.entries for read in self._read)

    @property
    def held_bytes(self) -> int:
        """The memory that those rows take."""
        return self._held_bytes

    @property
    def waiting_offers(self) -> int:
        """Offers that wait for room."""
        return len(self._waiters)

    @property
    def pressed(self) -> bool:
        """Whether somebody waits for room, or was refused since rows were last settled, or `hurry` was called."""
        return bool(self._waiters) or self._refused or self._hurried

    @property
    def full(self) -> bool:
        """Whether the next offer would most likely wait or be refused."""
        return bool(self._waiters) or self._refused or self._held_rows >= self._limits.rows

    @property
    def closed(self) -> bool:
        """Whether no more offers are taken."""
        return self._closed

    def age_s(self) -> float:
        """Seconds that the oldest unread entry has waited; 0 when there is none."""
        return self._clock() - self._entries[0].taken_at_s if self._entries else 0.0

    def oldest_age_s(self) -> float:
        """Seconds since the oldest entry that is not settled was taken; 0 when there is none."""
        return self._clock() - self._read[0].oldest_s if self._read else self.age_s()

    def hurry(self) -> None:
        """Nobody should wait for fuller batches any more."""
        self._hurried = True
        self._wake_reader()

    async def offer(self, batch: MetricBatch) -> None:
        """Takes the batch whole; returns once it is in the queue.

        Raises Invalid when it could never fit, Overloaded when there was no room in time, Unavailable after
        `close`. Cancelled while it waits, it takes nothing, unless room came in the same moment: then the
        rows are stored although nobody was told.
        """
        if self._closed:
            raise _closing()
        if batch.rows > self._limits.rows or batch.size_bytes > self._limits.bytes:
            msg = (
                f"{batch.rows} metrics of {batch.size_bytes} bytes are more than the whole queue holds"
                f" ({self._limits.rows} metrics, {self._limits.bytes} bytes): send smaller batches"
            )
            raise Invalid(msg)
        if not self._waiters and self._has_room(batch):
            self._take(batch)
        else:
            await self._wait_for_room(batch)

    async def wait(self, rows: int, timeout_s: float | None) -> None:
        """Returns when `rows` wait to be read, or some and the queue is pressed, when it is closed, or after
        `timeout_s` seconds."""
        if self._waiting_rows >= rows or (self.pressed and self._entries) or self._closed:
            return
        self._reader = asyncio.get_running_loop().create_future()
        self._reader_rows = rows
        try:
            await asyncio.wait_for(self._reader, timeout_s)
        except TimeoutError:
            pass
        finally:
            self._reader = None

    def read(self, rows_max: int) -> list[Entry]:
        """The oldest entries, whole, until at least `rows_max` rows are read or none are left; not so many single
        rows that the event loop would stand still."""
        taken: list[Entry] = []
        rows = 0
        while self._entries and rows < rows_max and len(taken) < _ENTRIES_READ_MAX:
            entry = self._entries.popleft()
            rows += entry.batch.rows
            taken.append(entry)
        self._waiting_rows -= rows
        if taken:
            self._read.append(_Read(len(taken), taken[0].taken_at_s))
        return taken

    def settle(self, entries: Sequence[Entry]) -> None:
        """These entries, the oldest that were read, are stored (or given up): their room is free again."""
        for entry in entries:
            batch = entry.batch
            self._held_rows -= batch.rows
            self._held_bytes -= batch.size_bytes
        left = len(entries)
        while left:
            read = self._read.popleft()
            if read.entries > left:
                self._read.appendleft(_Read(read.entries - left, read.oldest_s))
            left -= min(left, read.entries)
        self._refused = False
        self._admit()

    def close(self) -> None:
        """Refuses offers from now on, also those that wait; what is in the queue can still be read."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(_closing())
        self._wake_reader()

    def _has_room(self, batch: MetricBatch) -> bool:
        return (
            self._held_rows + batch.rows <= self._limits.rows
            and self._held_bytes + batch.size_bytes <= self._limits.bytes
        )

    def _take(self, batch: MetricBatch) -> None:
        self._entries.append(Entry(self._position, batch, self._clock()))
        self._position += 1
        self._on_taken(batch.rows)
        self._waiting_rows += batch.rows
        self._held_rows += batch.rows
        self._held_bytes += batch.size_bytes
        if self._waiting_rows >= self._reader_rows:
            self._wake_reader()

    async def _wait_for_room(self, batch: MetricBatch) -> None:
        wait_s = self._limits.admission_wait_s
        if wait_s <= 0 or self._waiters_bytes + batch.size_bytes > self._limits.waiting_bytes:
            raise self._full()
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[None] = loop.create_future()
        self._waiters[admitted] = batch
        self._waiters_bytes += batch.size_bytes
        self._wake_reader()
        timer = loop.call_later(wait_s, self._give_up, admitted)
        try:
            await admitted
        finally:
            timer.cancel()
            if self._leave(admitted):
                self._admit()  # whom this one was blocking

    def _give_up(self, admitted: asyncio.Future[None]) -> None:
        if not admitted.done():
            admitted.set_exception(self._full())

    def _leave(self, admitted: asyncio.Future[None]) -> bool:
        batch = self._waiters.pop(admitted, None)
        if batch is None:
            return False
        self._waiters_bytes -= batch.size_bytes
        return True

    def _admit(self) -> None:
        while self._waiters and not self._closed:
            admitted, batch = next(iter(self._waiters.items()))
            if not admitted.done():
                if not self._has_room(batch):
                    return
                admitted.set_result(None)
                self._take(batch)
            self._leave(admitted)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _full(self) -> Overloaded:
        self._refused = True
        self._wake_reader()
        msg = (
            f"the queue is full ({self._held_rows} of {self._limits.rows} metrics,"
            f" {self._held_bytes} of {self._limits.bytes} bytes): nothing was taken"
        )
        return Overloaded(msg, _RETRY_AFTER_S)


def _closing() -> Unavailable:
    return Unavailable("the server is stopping: nothing was taken", _RETRY_AFTER_S)
