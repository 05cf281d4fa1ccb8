"""The composition root: builds every stage and wires them sink-first, starts them, and stops them in reverse.

With its parts (`fronts`, `journals`, `storing`, `trust`) it alone knows two stages at once, and nothing happens
before `App.start`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from loguru import logger

from ingestor.batching import Backoff
from ingestor.errors import DataDirProblem
from ingestor.fronts import Addresses, Behind, Fronts
from ingestor.journal import DiskJournal, RequestIds
from ingestor.journals import Journal, disk_journal, memory_journal
from ingestor.settings import Settings
from ingestor.storage.database import Database
from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
from ingestor.storage.transactions import told_by_nobody
from ingestor.storing import Storing
from ingestor.tail import Tail
from ingestor.telemetry import Health, Telemetry, measure_lag
from ingestor.trust import Trust

_EMBEDDED_BACKOFF = Backoff(first_s=1.0)
# Of the time that stopping may take, calls under way get so much at most: the queue needs some, too.
_CALLS_SHARE = 0.6


class App:
    """One gateway. `start`, then `stop`; in between it serves.

    What is started pushes its own end onto a stack, so that stopping is the reverse of starting, from
    wherever starting got to.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = Telemetry()
        self.database_url = settings.database_url.get_secret_value()
        self.stopping = False
        self._ends = AsyncExitStack()
        self._left_s: Callable[[], float] = lambda: 0.0
        self._lost = 0
        self._embedded_problem: str | None = None
        self._journal: Journal | None = None
        self._trust = Trust(settings, self.telemetry)
        self._tail = Tail(self.telemetry)
        self._storing = Storing(
            settings, self.telemetry, lambda: self.database_url, lambda: self._embedded_problem, self._tail
        )

    @property
    def database(self) -> Database | None:
        """The database, once it is there. Only after `start`."""
        return self._storing.database

    def held_entries(self) -> int:
        """How many requests' metrics wait for the database."""
        return 0 if self._journal is None else self._journal.held_entries

    async def start(self) -> Addresses:
        """Starts everything, sink first, so that whatever can take data has somewhere to put it. Raises
        StartupError; what was started by then is stopped."""
        asyncio.get_running_loop().set_exception_handler(told_by_nobody)
        try:
            self._start_measuring()
            self._ends.callback(self._trust.close)
            self._trust.begin()
            if self.settings.embedded:
                await self._start_embedded()
            journal, requests = await self._open_journal()
            # A journal that knows its database can wait for it; without one, a wrong address should be told at
            # once.
            may_be_gone = isinstance(journal, DiskJournal) and journal.log.database is not None
            await self._storing.begin(journal, may_be_gone=may_be_gone)
            self._ends.push_async_callback(self._drain, journal)
            return await self._start_fronts(journal, requests)
        except BaseException:  # cancelled by Ctrl-C, too: whatever was started must end; it is raised again
            await self.stop(timeout_s=5.0)
            raise

    async def stop(self, timeout_s: float | None = None) -> int:
        """Stops everything in the reverse order, within `timeout_s` seconds (DRAIN_TIMEOUT unless said) and those
        that it takes to give up what does not answer. Returns how many metrics that were taken are lost: 0 unless
        the database failed us, and the disk or its absence."""
        self.stopping = True
        if self._journal is not None:
            self._journal.hurry()
        self._left_s = _countdown(
            self.settings.drain_timeout.total_seconds() if timeout_s is None else timeout_s
        )
        await self._ends.aclose()
        return self._lost

    def _start_measuring(self) -> None:
        lag = asyncio.create_task(measure_lag(self.telemetry.loop_lag.observe), name="loop-lag")
        self._ends.callback(lag.cancel)

    async def _start_embedded(self) -> None:
        embedded = EmbeddedPostgres(self.settings.data_dir)
        try:
            self.database_url = await embedded.start()
        except EmbeddedPostgresError as error:
            raise DataDirProblem(str(error)) from error
        self._ends.push_async_callback(embedded.stop)
        keeper = asyncio.create_task(self._keep_embedded(embedded), name="embedded-keeper")
        self._ends.callback(keeper.cancel)

    async def _keep_embedded(self, embedded: EmbeddedPostgres) -> None:
        """Starts the embedded database again whenever it dies under us; batches are kept meanwhile."""
        while True:
            self._embedded_problem = str(await embedded.exited)
            logger.error("{}; it is started again", self._embedded_problem)
            failures = 0
            while self._embedded_problem is not None:
                try:
                    self.database_url = await embedded.start()
                except EmbeddedPostgresError as error:
                    failures += 1
                    self._embedded_problem = str(error)
                    logger.warning("the embedded PostgreSQL can't be started: {}", error)
                    await asyncio.sleep(_EMBEDDED_BACKOFF.delay_s(failures, 0.5))
                else:
                    self._embedded_problem = None
            if self.database is not None:
                self.database.move(self.database_url)

    async def _open_journal(self) -> tuple[Journal, RequestIds]:
        window_s = self.settings.request_id_window.total_seconds()
        requests = RequestIds(self._storing.stored_requests, window_s=window_s)
        journal: Journal
        if self.settings.journal == "disk":
            journal = await disk_journal(
                self.settings, requests, self.telemetry, lambda: self._storing.outage
            )
            self._ends.push_async_callback(self._end_journal, journal)
        else:
            journal = memory_journal(self.settings, requests, self.telemetry)
        self._ends.push_async_callback(lambda: self._storing.close(journal, max(1.0, self._left_s())))
        self._journal = journal
        self.telemetry.watch_queue(
            rows=lambda: journal.held_rows,
            size_bytes=lambda: journal.held_bytes,
            age_s=journal.oldest_age_s,
            waiting_requests=lambda: journal.waiting_offers,
            capacity=self.settings.queue_capacity,
        )
        return journal, requests

    async def _end_journal(self, journal: DiskJournal) -> None:
        if lost := await journal.end(max(1.0, self._left_s())):
            self._lost += lost
            logger.error(
                "{} metrics that were acknowledged as queued could not be written, and are lost: {}",
                lost,
                journal.problem or "the disk was too slow",
            )
        if kept := journal.held_rows - lost:
            logger.warning("{} metrics stay in the journal; the next start stores them", kept)

    async def _drain(self, journal: Journal) -> None:
        journal.close()
        if waiting := journal.held_rows:
            logger.info("storing {} queued metrics before the end", waiting)
        # What is on disk need not wait for a database that is gone.
        if await self._storing.drain(self._left_s(), patient=not journal.durable) or journal.durable:
            return
        self._lost = journal.held_rows
        logger.error(
            "{} metrics that were taken were not stored within DRAIN_TIMEOUT and are lost (JOURNAL=memory; none"
            " was acknowledged as committed): {}",
            self._lost,
            self._storing.outage or "the database was too slow",
        )

    async def _start_fronts(self, journal: Journal, requests: RequestIds) -> Addresses:
        behind = Behind(journal, requests, self._storing, self._tail, self._health(journal))
        fronts = Fronts(self.settings, self.telemetry, self._trust.gate, behind)
        self._ends.push_async_callback(lambda: fronts.close(self._left_s() * _CALLS_SHARE))
        return await fronts.start(self._trust.context)

    def _health(self, journal: Journal) -> Health:
        async def accepting() -> str | None:
            return "the server is stopping" if self.stopping else None

        async def room() -> str | None:
            if isinstance(journal, DiskJournal) and journal.problem is not None:
                return f"the journal can't be written: {journal.problem}"
            return f"the queue is full ({journal.held_rows} metrics wait)" if journal.full else None

        health = Health()
        health.add("accepting", accepting)
        health.add("queue", room)
        # A disk journal takes metrics without it, which is what it is for.
        health.add("worker", self._storing.death)
        health.add("database", self._storing.problem, vital=not journal.durable)
        # Those that are known stay in force.
        health.add("keys", self._trust.problem, vital=False)
        return health


def _countdown(seconds: float) -> Callable[[], float]:
    ends_at = time.monotonic() + seconds
    return lambda: max(0.0, ends_at - time.monotonic())
