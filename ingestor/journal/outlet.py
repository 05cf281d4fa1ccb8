"""The half of the disk journal that gives entries to the one who stores, and lets go of what the database has.

It never gives out what is not synced, so that a crash can't take what the database has. What it gave stays in the
log until it is settled, and is given again when the database turns out not to have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ingestor.journal.admission import Admission
from ingestor.journal.books import Books
from ingestor.journal.commits import Commits
from ingestor.journal.log_thread import LogThread
from ingestor.journal.receipts import Offer
from ingestor.journal.request_ids import RequestIds
from ingestor.journal.sleep import Reader
from ingestor.model import Entry, Outcome, Taken

# How long the log may take what is committed for pending, while nobody needs the room.
_RELEASE_S = 0.1


class Outlet:
    """One task reads and settles. `stop` it in the end."""

    def __init__(
        self,
        log: LogThread,
        books: Books,
        *,
        requests: RequestIds,
        commits: Commits,
        admission: Admission[Offer],
        reader: Reader,
        on_lost: Callable[[int], object],
    ) -> None:
        self._log = log
        self._books = books
        self._requests = requests
        self._commits = commits
        self._admission = admission
        self._reader = reader
        self._on_lost = on_lost
        self._releasing: asyncio.Task[None] | None = None

    async def read(self, rows_max: int) -> list[Entry]:
        """As `DiskJournal.read`."""
        backlog = self._books.backlog
        entries = backlog.take(rows_max)
        if not entries and backlog.spilled:
            async with self._log.changing:
                entries = await self._from_disk(rows_max)
        if entries:
            self._books.gave(entries)
        return entries

    def settle(self, entries: Sequence[Entry | Taken], outcome: Outcome) -> None:
        """As `DiskJournal.settle`."""
        self._books.settled(entries[-1].position)
        self._commits.settled(entries, outcome)
        self._admission.room_made()
        if self._releasing is None or self._releasing.done():
            self._releasing = asyncio.create_task(self._release(), name="journal-release")

    async def rewind(self, position: int) -> int:
        """As `DiskJournal.rewind`."""
        books = self._books
        async with self._log.changing:
            if position < books.committed:
                # Also when it can't be read now.
                self._requests.forget_recent()
                books.committed = position
            behind = await self._log.go_to(position)
            books.room_bytes = behind.room_bytes
            self._commits.restart(position, behind.placed)
            change = books.restarted(position, behind.rows, behind.marks)
        self._admission.room_made()
        self._reader.wake()
        return change

    async def stop(self) -> None:
        """Lets the log hear of all that is committed."""
        if self._releasing is not None:
            await asyncio.wait([self._releasing])

    async def _from_disk(self, rows_max: int) -> list[Entry]:
        backlog = self._books.backlog
        entries = await self._log.read(backlog.read_to, rows_max)
        if missing := backlog.read(entries):
            # Whatever happened to the disk; the log has said what.
            self._books.lost(missing)
            self._on_lost(missing)
            if not entries:
                self._commits.lost(self._books.given_to, backlog.last)
        return entries

    async def _release(self) -> None:
        """Lets the log go on without what is committed; the next write does that by the way, if one comes soon."""
        books = self._books
        if not self._admission.pressed:
            await asyncio.sleep(_RELEASE_S)
        while books.committed != books.released:
            async with self._log.changing:
                position = books.committed  # a rewind may have been first
                books.room_bytes = await self._log.release(position)
            books.released = position
            self._admission.room_made()
