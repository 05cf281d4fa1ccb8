"""What lies behind the journal: the database, and the worker that stores what the journal holds.

Part of the composition root. With a disk journal that knows its database, the server need not wait for it to start:
what comes is kept meanwhile, and storing begins when the database is there. It gives up nothing, and never guesses
which database is meant.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress

from loguru import logger

from ingestor.batching import Backoff, BatchWorker, FlushPolicy
from ingestor.batching.worker import Watcher
from ingestor.errors import DatabaseProblem, StartupError, StorageError, StorageUnavailable, Unavailable
from ingestor.journal import DiskJournal, MemoryJournal
from ingestor.journals import Journal, committed_in
from ingestor.model import RequestKey, StoredRequest
from ingestor.model.delivery import NOTHING
from ingestor.model.questions import MetricPoints, MetricQuestion, SeriesQuestion, StoredSeries
from ingestor.settings import Settings
from ingestor.storage.copy import ReferenceEncoder
from ingestor.storage.database import Database
from ingestor.storage.opening import open_database
from ingestor.storage.reading import DatabaseReader, ReadLimits
from ingestor.storage.repository import MetricRepository
from ingestor.storage.summaries import Summaries
from ingestor.telemetry import Telemetry

# A probe is answered from the last look at the database for so long, however often it is asked.
_LOOK_S = 1.0
_ANSWER_S = 2.0
# How large a batch may grow that was held up, in BATCH_SIZEs.
_GROWTH_ROWS, _GROWTH_COLUMNS = 3, 10
_PURGE_EVERY_S = 600.0
_CATCH_UP_EVERY_S = 5.0
_READ_AGAIN_S = 1.0
_BACKOFF = Backoff(first_s=0.5)


class Storing:
    """`address` says where the database is at the moment, `embedded_problem` why the embedded one is not there."""

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        address: Callable[[], str],
        embedded_problem: Callable[[], str | None],
        watcher: Watcher,
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._address = address
        self._embedded_problem = embedded_problem
        self._watcher = watcher
        self._reader: DatabaseReader | None = None
        self._repository: MetricRepository | None = None
        self._unconnected: str | None = None
        self._worker: BatchWorker | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._summaries: Summaries | None = None
        self._look: asyncio.Task[str | None] | None = None
        self._looked_at_s = float("-inf")
        self.database: Database | None = None

    @property
    def outage(self) -> str | None:
        """Why nothing can be stored at the moment, as far as is known."""
        if (problem := self._embedded_problem() or self._unconnected) is not None:
            return problem
        return None if self._worker is None else self._worker.failure

    async def death(self) -> str | None:
        """Why nothing will be stored any more until the process starts anew; None when that is not so."""
        return None if self._worker is None else self._worker.death

    async def problem(self) -> str | None:
        """The same, after a look at the database: one at a time, whoever asks, and not more often than each
        second."""
        if (outage := self.outage) is not None or self.database is None:
            return outage
        now_s = time.monotonic()
        if self._look is None or (self._look.done() and now_s - self._looked_at_s > _LOOK_S):
            self._looked_at_s = now_s
            self._look = asyncio.create_task(self.database.problem(_ANSWER_S))
        return await asyncio.shield(self._look)

    async def stored_requests(self, keys: Sequence[RequestKey]) -> Mapping[RequestKey, StoredRequest]:
        """Those of these requests that are committed. Raises StorageError when that can't be told now."""
        if self.database is None or (outage := self.outage) is not None:
            raise StorageUnavailable(outage or "not connected yet")  # nobody should wait for that
        return await self.database.stored_requests(keys, self._window_s)

    async def points(self, question: MetricQuestion) -> MetricPoints:
        """What is stored. Raises Invalid, Overloaded, TooSlow or Unavailable."""
        if self._summaries is not None:
            self._summaries.asked()
        return await self._reading().points(question)

    async def series(self, question: SeriesQuestion) -> Sequence[StoredSeries]:
        """Which series are. Raises Overloaded, TooSlow or Unavailable."""
        return await self._reading().series(question)

    def _reading(self) -> DatabaseReader:
        if self._reader is None:
            msg = "the database can't be read at the moment"
            raise Unavailable(msg, _READ_AGAIN_S)
        return self._reader

    async def begin(self, journal: Journal, *, may_be_gone: bool) -> None:
        """Connects, and stores what the journal holds from now on. Raises StartupError; not when the database
        `may_be_gone` and is: then it is tried until it is there."""
        try:
            await self._begin(journal)
        except DatabaseProblem as problem:
            if not (may_be_gone and problem.passing):
                raise
            logger.warning("metrics are taken and kept until the database is there: {}", problem)
            if isinstance(journal, DiskJournal):
                await journal.leap()
            self._unconnected = str(problem)
            self._spawn(self._begin_later(journal), "connect")

    async def drain(self, timeout_s: float, *, patient: bool) -> bool:
        """Waits until the closed journal is empty, as `BatchWorker.drain` does. Says whether all is stored."""
        return self._worker is not None and await self._worker.drain(timeout_s, patient=patient)

    async def close(self, journal: Journal, timeout_s: float) -> None:
        """Leaves the database, whatever anything that waits for it does then."""
        await self._end_tasks()
        if self.database is None:
            return
        await self._catch_up(all_=True)
        if isinstance(journal, MemoryJournal) and self.outage is None:
            # It will not be asked for again. (If that fails, it is purged some day.)
            with suppress(StorageError, TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    await self.database.forget_cursor(journal.id)
        await self.database.close(timeout_s)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ANSWER_S)
        for task in self._tasks:
            if not task.done():
                logger.warning("{} does not end, and is left", task.get_name())

    @property
    def _window_s(self) -> float:
        return self._settings.request_id_window.total_seconds()

    async def _begin_later(self, journal: Journal) -> None:
        failures = 0
        while True:
            failures += 1
            await asyncio.sleep(_BACKOFF.delay_s(failures, random.random()))  # noqa: S311 - jitter
            try:
                await self._begin(journal)
            except StartupError as problem:
                self._unconnected = str(problem)
                log = (
                    logger.debug if isinstance(problem, DatabaseProblem) and problem.passing else logger.error
                )
                log("nothing can be stored yet: {}", problem)
            else:
                self._unconnected = None
                logger.info("the database is there: {}", self.database and self.database.facts)
                return

    async def _begin(self, journal: Journal) -> None:
        settings = self._settings
        database = await open_database(
            self._address(), column_store=settings.column_store, telemetry=self._telemetry
        )
        limits = ReadLimits(
            settings.query_connections, settings.query_timeout.total_seconds(), share=settings.query_share
        )

        # The column store packs rows of one series together, of which a larger batch has more.
        growth = _GROWTH_ROWS if database.column_store is None else _GROWTH_COLUMNS
        policy = FlushPolicy(settings.batch_size, settings.flush_interval.total_seconds(), growth)

        try:
            self._reader = await database.open_reader(self._address(), limits, self._busy)
            await self._start_worker(journal, database, policy)
        except StorageError as error:
            await database.close(_ANSWER_S)
            msg = f"the database can't be used: {error}"
            raise DatabaseProblem(msg, passing=True) from error
        except BaseException:  # cancelled, too; it is raised again
            await database.close(_ANSWER_S)
            raise
        self.database = database
        for migration in database.applied:
            logger.info("applied migration {:04} {}", migration.version, migration.name)
        self._spawn(self._purge(database), "purge")
        self._spawn(self._keep_catalogue(), "catalogue")
        if database.facts.table == "partitioned":
            self._summaries = Summaries(database.summarize, self._stored_to)
            self._spawn(self._summaries.keep(), "summaries")

    async def _start_worker(self, journal: Journal, database: Database, policy: FlushPolicy) -> None:
        encoder = ReferenceEncoder() if self._settings.codecs == "reference" else None
        after = await self._meet(journal, database)
        repository = database.repository(encoder, journal.id, request_id_window_s=self._window_s)
        self._worker = BatchWorker(
            journal, repository, policy, self._telemetry, after=after, watcher=self._watcher
        )
        self._repository = repository
        self._worker.start_batch_processing()

    async def _meet(self, journal: Journal, database: Database) -> int:
        """Journal and database agree on what is committed. Returns the cursor."""
        if not isinstance(journal, DiskJournal):
            await database.begin_cursor(journal.id, NOTHING, durable=False)
            return NOTHING
        after = await committed_in(database, journal)
        more = await journal.rewind(after)
        self._telemetry.received.inc(max(more, 0))
        self._telemetry.committed.inc(max(-more, 0))
        if waiting := journal.held_rows:
            logger.info("storing {} metrics that the journal holds", waiting)
        return after

    async def _purge(self, database: Database) -> None:
        """Now and then removes from the database what nobody will ask for again."""
        while True:
            await asyncio.sleep(_PURGE_EVERY_S)
            try:
                await database.purge(self._window_s)
            except StorageError as error:
                logger.warning("old request ids could not be removed, which is tried again: {}", error)

    def _busy(self) -> bool:
        return self._worker is not None and self._worker.busy

    def _stored_to(self) -> int:
        return NOTHING if self._worker is None else self._worker.stored_to

    async def _keep_catalogue(self) -> None:
        """Series that get no more rows would otherwise stay behind."""
        while True:
            await asyncio.sleep(_CATCH_UP_EVERY_S)
            await self._catch_up()

    async def _catch_up(self, *, all_: bool = False) -> None:
        if self._repository is None or self.outage is not None:
            return
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._repository.catch_up(all_=all_)
        except (StorageError, TimeoutError) as error:
            logger.debug("the times of series could not be written, which is tried again: {}", error)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))
