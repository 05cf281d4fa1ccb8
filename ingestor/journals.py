"""Opens the journal that the settings ask for, and brings it into accord with the database: whose entries it holds,
and up to where they are committed there.

Part of the composition root: journal and database don't know each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from loguru import logger

from ingestor.errors import JournalProblem
from ingestor.journal import DiskJournal, MemoryJournal, QueueLimits, RequestIds
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.kernel_sync import KernelSync
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.model.delivery import NOTHING
from ingestor.settings import Settings
from ingestor.storage.database import Database
from ingestor.telemetry import Telemetry

Journal: TypeAlias = MemoryJournal | DiskJournal
Outage: TypeAlias = "Callable[[], str | None]"

# Of the bytes that the queue may hold, those that requests waiting for room may hold beside it.
_WAITING_SHARE = 4
# What the journal leaves free of its file system.
_RESERVE_SHARE, _RESERVE_BYTES_MAX = 0.05, 1024**3


def memory_journal(settings: Settings, requests: RequestIds, telemetry: Telemetry) -> MemoryJournal:
    """An empty one."""
    return MemoryJournal(queue_limits(settings), requests, on_taken=telemetry.received.inc)


async def disk_journal(
    settings: Settings, requests: RequestIds, telemetry: Telemetry, outage: Outage
) -> DiskJournal:
    """The one in DATA_DIR, which has what it is known to have. Raises JournalProblem."""
    log = await asyncio.to_thread(_open_log, settings)
    journal = DiskJournal(
        log,
        queue_limits(settings),
        requests,
        on_taken=telemetry.received.inc,
        on_synced=telemetry.sync_seconds.observe,
        on_lost=telemetry.lost.inc,
        outage=outage,
        syncs=_syncs(settings),
    )
    telemetry.journal_bytes.set_function(lambda: log.size_bytes)
    telemetry.journal_bytes_max.set(settings.journal_bytes_max)
    telemetry.journal_room.set_function(lambda: journal.room_bytes)
    telemetry.journal_gaps.set_function(lambda: sum(gap.last - gap.first + 1 for gap in log.recovery.gaps))
    telemetry.received.inc(await journal.resume())
    return journal


def _syncs(settings: Settings) -> KernelSync | None:
    if settings.journal_sync == "thread":
        return None
    syncs = KernelSync.open()
    if syncs is None:
        logger.info(
            "the kernel doesn't sync the journal by itself here: a thread does, which takes a little longer"
        )
    return syncs


def _open_log(settings: Settings) -> SegmentLog:
    directory = DiskDirectory.open(settings.data_dir)
    limits = LogLimits(
        settings.journal_bytes_max,
        retention_s=settings.journal_retention.total_seconds(),
        # A database on the same disk must be able to take what the journal holds.
        free_bytes_reserve=min(_RESERVE_BYTES_MAX, int(_RESERVE_SHARE * directory.space().total)),
    )
    return SegmentLog.open(directory, limits)


async def committed_in(database: Database, journal: DiskJournal) -> int:
    """Up to where the database has this journal's entries. Raises JournalProblem for a journal that waits for
    another database, DatabaseProblem."""
    log = journal.log
    if log.database != database.identity:
        if log.database is not None and log.is_pending:
            msg = (
                f"the journal in DATA_DIR holds metrics for another database (entries {log.committed_hint + 1} to"
                f" {log.last}, for {log.database}; this one is {database.identity}): name that one in DATABASE_URL,"
                " or give them to this one: ingestor journal adopt"
            )
            raise JournalProblem(msg)
        await adopt(database, journal)
    cursor = await database.cursor(log.id)
    if cursor is None:
        cursor = NOTHING
        await database.begin_cursor(log.id, cursor, durable=True)
    if cursor < log.committed_hint:
        logger.error(
            "the database had this journal's entries up to {} and has them up to {} now: it was restored to an"
            " earlier moment, or lost commits in a failover; what is still in the journal is stored again",
            log.committed_hint,
            cursor,
        )
    return cursor


async def adopt(database: Database, journal: DiskJournal) -> None:
    """From now on the journal is this database's; what it holds and has not committed elsewhere is stored here."""
    log = journal.log
    if log.database is not None:
        logger.warning("the journal goes on with another database, {}", database.identity)
    await database.adopt_cursor(log.id, log.committed_hint, durable=True)
    await journal.bind(database.identity)


def queue_limits(settings: Settings) -> QueueLimits:
    """The bounds in memory, and how long one waits for room."""
    return QueueLimits(
        rows=settings.queue_capacity,
        bytes=settings.queue_bytes,
        waiting_bytes=settings.queue_bytes // _WAITING_SHARE,
        admission_wait_s=settings.admission_wait.total_seconds(),
    )
