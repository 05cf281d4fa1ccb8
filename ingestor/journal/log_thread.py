"""The log (`journal.log`) as the event loop uses it: offers go in, entries come out, and every call is made in one
thread that the log has for itself. But for small appends, where the kernel syncs by itself: what is written to its
page cache takes less than changing to the thread and back does. The price: while a file system is frozen, one such
write stops the event loop.

It makes no two calls at once, and decides nothing: what a call found, its caller enters in the books. Whoever
changes what the log holds, or where it is read, holds `changing` until all of the journal is in accord with it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar
from uuid import UUID

from loguru import logger

from ingestor.errors import JournalProblem
from ingestor.journal.backlog import Marks
from ingestor.journal.files import File
from ingestor.journal.joining import Joined, join
from ingestor.journal.log import SegmentLog
from ingestor.journal.receipts import Offer
from ingestor.journal.records import Record
from ingestor.journal.request_ids import HELD_MAX
from ingestor.model import Entry, Placed

# What is read from disk at once.
_READ_BYTES_MAX = 8 * 1024**2
# More takes the event loop longer than it takes the thread to answer: some milliseconds.
_HERE_BYTES_MAX, _HERE_OFFERS_MAX = 1024**2, 256
# So old may be what was last seen of the disk's room.
_LOOK_S = 1.0
# A write that takes longer waits for the disk, since its page cache is full or its file system frozen, and the
# event loop must not; a sync that takes longer tells of such a disk. For so long nothing more is written there.
_SLOW_WRITE_S, _SLOW_SYNC_S, _AVOID_S = 0.02, 0.1, 10.0

ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")


class Written(NamedTuple):
    """What an append made of its offers, what the log may take after it, and how long the disk took."""

    joined: list[Joined]
    room_bytes: int
    took_s: float


class Syncs(Protocol):
    """Syncs files in no thread of ours."""

    def begin(self, file: File) -> asyncio.Future[None] | None:
        """The future ends when what was written to the file is synced, with OSError when that failed; None when
        nothing was begun."""

    def close(self) -> None:
        """Nothing more comes."""


class Behind:
    """What lies behind a place of the log, and what the log may take then."""

    def __init__(self) -> None:
        self.rows = 0
        self.marks = Marks()
        self.placed: list[tuple[int, Placed]] = []
        self.room_bytes = 0


class LogThread:
    """`clock` tells monotonic seconds; without `syncs` all is done in the thread. `close` it in the end."""

    def __init__(self, log: SegmentLog, clock: Callable[[], float], syncs: Syncs | None = None) -> None:
        self._log = log
        self.changing = asyncio.Lock()
        self._clock = clock
        self._syncs = syncs
        self._room_bytes = 0
        self._looked_at_s = self._avoided_until_s = -math.inf
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        # Those that are under way, also when nobody waits for them any more.
        self._calls: set[Future[Any]] = set()

    @property
    def size_bytes(self) -> int:
        """What the log takes on disk."""
        return self._log.size_bytes

    async def append(self, group: Sequence[Offer], position: int, committed: int) -> Written:
        """Writes and syncs these as entries, the first of them at `position`; up to `committed` the database has
        all. Raises AppendFailed."""
        if (written := await self._append_here(group, position, committed)) is not None:
            return written
        return await self._aside(self._append, group, position, committed)

    async def release(self, position: int) -> int:
        """The log may let go of what stands up to here. Returns what it may take then."""
        return await self._aside(self._release, position)

    async def room_bytes(self) -> int:
        """What the log may take; what it said last when that can't be seen."""
        return await self._aside(self._room_now)

    async def read(self, after: int, rows_max: int) -> list[Entry]:
        """What stands behind `after`, until so many rows or some MiB are read. Raises JournalProblem."""
        with _readable():
            return await self._aside(self._read, after, rows_max)

    async def go_to(self, position: int) -> Behind:
        """What stands up to `position` is in the database, and nothing behind; what is there? Raises
        JournalProblem."""
        with _readable():
            return await self._aside(self._go_to, position)

    async def leap(self) -> int:
        """As `SegmentLog.leap`; returns behind which position it goes on."""
        await self._aside(self._log.leap)
        return self._log.last

    async def bind(self, database: UUID) -> None:
        """What is in the log, and what will be, is for this database. Raises JournalProblem."""
        with _readable():
            await self._aside(self._log.bind, database)

    async def close(self) -> None:
        """Closes the log behind all calls."""
        await self._aside(self._log.close)
        self._thread.shutdown()
        if self._syncs is not None:
            self._syncs.close()

    async def _aside(
        self, work: Callable[ParamsT, ResultT], *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> ResultT:
        """In the log's thread, as all that follows."""
        call = self._thread.submit(partial(work, *args, **kwargs))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(call)

    async def _append_here(self, group: Sequence[Offer], position: int, committed: int) -> Written | None:
        """As `append`, without the thread; None when that can't be, or failed: then nothing of it counts."""
        if self._syncs is None or not self._is_for_here(group):
            return None
        joined, records = self._records(group, position)
        began_s = time.perf_counter()
        try:
            with self._no_slower_than(_SLOW_WRITE_S):
                begun = self._log.begin(records)
            if begun is None:
                return None
            with self._no_slower_than(_SLOW_SYNC_S):
                await self._sync(self._syncs, begun.file)
        except OSError as error:
            logger.warning("the journal can't be written to, and tries it again: {}", error)
            return None
        self._log.finish(begun)
        took_s = time.perf_counter() - began_s
        self._log.note_committed(committed)
        self._room_bytes = max(0, self._room_bytes - len(begun.data))
        return Written(joined, self._room_bytes, took_s)

    def _is_for_here(self, group: Sequence[Offer]) -> bool:
        """Whether the event loop has time for these, and the log nothing else to do."""
        now_s = self._clock()
        return (
            0 < len(group) <= _HERE_OFFERS_MAX
            and now_s - self._looked_at_s < _LOOK_S
            and now_s >= self._avoided_until_s
            and not self._calls
            and sum(map(_written_bytes, group)) <= _HERE_BYTES_MAX
            and self._log.may_begin
        )

    @contextmanager
    def _no_slower_than(self, bound_s: float) -> Iterator[None]:
        """Or this was the last for a while."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            if time.perf_counter() - began_s > bound_s:
                self._avoided_until_s = self._clock() + _AVOID_S

    async def _sync(self, syncs: Syncs, file: File) -> None:
        """In the thread after all, where nobody else does it. Raises OSError."""
        sync = syncs.begin(file)
        await (self._aside(file.sync) if sync is None else sync)

    def _append(self, group: Sequence[Offer], position: int, committed: int) -> Written:
        joined, records = self._records(group, position)
        began_s = time.perf_counter()
        self._log.append(records)
        took_s = time.perf_counter() - began_s
        self._log.committed(committed)
        return Written(joined, self._room_now(), took_s)

    def _records(self, group: Sequence[Offer], position: int) -> tuple[list[Joined], list[Record]]:
        wall_us = time.time_ns() // 1_000
        now_s = self._clock()
        joined = join(group, position)
        records = [
            Record(
                each.entry.position,
                each.entry.batch,
                wall_us - int((now_s - each.entry.taken_at_s) * 1e6),
                each.entry.requests,
            )
            for each in joined
        ]
        return joined, records

    def _release(self, position: int) -> int:
        self._log.committed(position)
        return self._room_now()

    def _room_now(self) -> int:
        with suppress(OSError):  # writing tells more
            self._room_bytes = self._log.room_bytes()
            self._looked_at_s = self._clock()
        return self._room_bytes

    def _read(self, after: int, rows_max: int) -> list[Entry]:
        records = self._log.read(after, rows_max, _READ_BYTES_MAX)
        now_s, wall_s = self._clock(), time.time()
        return [
            Entry(each.position, each.batch, _monotonic_s(each.taken_at_us, now_s, wall_s), each.requests)
            for each in records
        ]

    def _go_to(self, position: int) -> Behind:
        behind = Behind()
        if position > self._log.last:
            logger.warning(
                "the database has entries up to {} of this journal, which ends at {}",
                position,
                self._log.last,
            )
            self._log.skip_to(position)
        else:
            # Told first, whether it can be read now or not: the log must not let go of what is to be stored again.
            if gap := self._log.rewound(position):
                logger.error(
                    "entries {} to {} are not in the database, and not in the journal any more", *gap
                )
            now_s, wall_s = self._clock(), time.time()
            for summary in self._log.pending(position):
                behind.rows += summary.rows
                behind.marks.add(summary.position, _monotonic_s(summary.taken_at_us, now_s, wall_s))
                if len(behind.placed) < HELD_MAX:
                    behind.placed.extend((summary.position, placed) for placed in summary.requests)
        behind.room_bytes = self._room_now()
        return behind


@contextmanager
def _readable() -> Iterator[None]:
    """Raises JournalProblem for what the disk raises."""
    try:
        yield
    except OSError as error:
        msg = f"the journal can't be read: {(error.strerror or str(error)).lower()}"
        raise JournalProblem(msg) from error


def _written_bytes(offer: Offer) -> int:
    """About so many, with what its answer says of rows that were refused."""
    return offer.size_bytes + (len(offer.request.rejected) if offer.request is not None else 0)


def _monotonic_s(taken_at_us: int, now_s: float, wall_s: float) -> float:
    """A time of the calendar as one of the monotonic clock, which is at `now_s` when the calendar's is at
    `wall_s`; never in the future."""
    return now_s - max(0.0, wall_s - taken_at_us / 1e6)
