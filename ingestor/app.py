"""The composition root: builds every stage and wires them sink-first, starts them, and stops them in reverse.

Nothing else in the package knows two stages at once, and nothing happens before `App.start`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import uuid4

from loguru import logger

from ingestor.batching import Backoff, BatchWorker, FlushPolicy
from ingestor.errors import DataDirProblem
from ingestor.journal import Entry, MemoryJournal, QueueLimits
from ingestor.model import Limits, Rules
from ingestor.service import IngestorService
from ingestor.settings import Settings
from ingestor.storage.copy import ReferenceEncoder
from ingestor.storage.database import Database, DatabaseFacts, open_database
from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
from ingestor.telemetry import Health, Telemetry
from ingestor.telemetry.registry import CONTENT_TYPE
from ingestor.transport import columns
from ingestor.transport.grpc import GrpcServer
from ingestor.transport.http import HttpServer, Page, json_page
from ingestor.transport.rpc import ColumnOptions, Descriptors
from ingestor.transport.transcoding import Router

_GENERATED = "ingestor_api"
# Of the bytes that the queue may hold, those that requests waiting for room may hold beside it.
_WAITING_SHARE = 4
_EMBEDDED_BACKOFF = Backoff(first_s=1.0)
# A probe is answered from the last look at the database for so long, however often it is asked.
_DATABASE_LOOK_S = 1.0
_DATABASE_ANSWER_S = 2.0
# Of the time that stopping may take, calls under way get so much at most: the queue needs some, too.
_CALLS_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a started app listens."""

    host: str
    grpc_port: int
    http_port: int


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
        self._database: Database | None = None
        self._journal: MemoryJournal | None = None

    @property
    def database(self) -> Database:
        """The database. Only after `start`."""
        assert self._database is not None
        return self._database

    @property
    def facts(self) -> DatabaseFacts:
        """What the database is. Only after `start`."""
        return self.database.facts

    def held_entries(self) -> int:
        """How many requests' metrics wait for the database."""
        return 0 if self._journal is None else self._journal.held_entries

    async def start(self) -> Addresses:
        """Starts everything, sink first, so that whatever can take data has somewhere to put it. Raises
        StartupError; what was started by then is stopped."""
        try:
            if self.settings.embedded:
                await self._start_embedded()
            database = await self._open_database()
            journal = self._open_journal()
            worker = self._start_worker(journal, database)
            return await self._start_fronts(journal, self._health(database, journal, worker))
        except BaseException:  # cancelled by Ctrl-C, too: whatever was started must end; it is raised again
            await self.stop(timeout_s=5.0)
            raise

    async def stop(self, timeout_s: float | None = None) -> int:
        """Stops everything in the reverse order, within `timeout_s` seconds (DRAIN_TIMEOUT unless said).
        Returns how many acknowledged metrics could not be stored: 0 unless the database failed us."""
        self.stopping = True
        if self._journal is not None:
            self._journal.hurry()
        self._left_s = _countdown(
            self.settings.drain_timeout.total_seconds() if timeout_s is None else timeout_s
        )
        await self._ends.aclose()
        return self._lost

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
            if self._database is not None:
                self._database.move(self.database_url)

    async def _open_database(self) -> Database:
        database = self._database = await open_database(
            self.database_url, column_store=self.settings.column_store, telemetry=self.telemetry
        )
        self._ends.push_async_callback(self._close_database, database)
        for migration in database.applied:
            logger.info("applied migration {:04} {}", migration.version, migration.name)
        return database

    async def _close_database(self, database: Database) -> None:
        await database.close(max(1.0, self._left_s()))

    def _open_journal(self) -> MemoryJournal:
        journal = self._journal = MemoryJournal(
            _queue_limits(self.settings), on_taken=self.telemetry.received.inc
        )
        self.telemetry.watch_queue(
            rows=lambda: journal.held_rows,
            size_bytes=lambda: journal.held_bytes,
            age_s=journal.oldest_age_s,
            waiting_requests=lambda: journal.waiting_offers,
            capacity=self.settings.queue_capacity,
        )
        return journal

    def _start_worker(self, journal: MemoryJournal, database: Database) -> BatchWorker[Entry]:
        encoder = ReferenceEncoder() if self.settings.codecs == "reference" else None
        policy = FlushPolicy(self.settings.batch_size, self.settings.flush_interval.total_seconds())
        worker = BatchWorker(journal, database.repository(encoder, uuid4()), policy, self.telemetry)
        worker.start_batch_processing()
        self._ends.push_async_callback(self._drain, journal, worker)
        return worker

    async def _drain(self, journal: MemoryJournal, worker: BatchWorker[Entry]) -> None:
        journal.close()
        if waiting := journal.held_rows:
            logger.info("storing {} queued metrics before the end", waiting)
        if await worker.drain(self._left_s()):
            return
        self._lost = journal.held_rows
        logger.error(
            "{} acknowledged metrics were not stored within DRAIN_TIMEOUT and are lost (JOURNAL=memory): {}",
            self._lost,
            worker.failure or "the database was too slow",
        )

    async def _start_fronts(self, journal: MemoryJournal, health: Health) -> Addresses:
        settings = self.settings
        limits = Limits(time_past_max=settings.time_past_max, time_future_max=settings.time_future_max)
        service = IngestorService(journal, Rules(limits), self.telemetry)
        descriptors = Descriptors.of_package(_GENERATED)
        native = settings.codecs == "native" and columns.native_available()
        decoder = columns.NativeDecoder if native else columns.ReferenceDecoder
        rpcs = descriptors.bind(service, ColumnOptions(decoder, limits.rows_max))
        grpc = GrpcServer(rpcs, message_bytes_max=settings.message_bytes_max, lane=settings.grpc_lane)
        http = HttpServer(
            Router(rpcs, descriptors.pool, elements_max=limits.rows_max),
            _pages(health, self.telemetry),
            body_bytes_max=settings.message_bytes_max,
        )
        self._ends.push_async_callback(self._close_fronts, grpc, http)
        grpc_port = await grpc.start(settings.host, settings.grpc_port)
        http_port = await http.start(settings.host, settings.http_port)
        return Addresses(settings.host, grpc_port, http_port)

    async def _close_fronts(self, grpc: GrpcServer, http: HttpServer) -> None:
        """No new calls; those under way are answered, while the worker still makes room for them."""
        timeout_s = self._left_s() * _CALLS_SHARE
        answered = await asyncio.gather(grpc.drain(timeout_s), http.drain(timeout_s))
        if not all(answered):
            logger.warning("some calls under way were not answered within DRAIN_TIMEOUT")
        await asyncio.gather(grpc.close(), http.close())

    def _health(self, database: Database, journal: MemoryJournal, worker: BatchWorker[Entry]) -> Health:
        look: asyncio.Task[str | None] | None = None
        looked_at_s = float("-inf")

        async def accepting() -> str | None:
            return "the server is stopping" if self.stopping else None

        async def room() -> str | None:
            return f"the queue is full ({journal.held_rows} metrics wait)" if journal.full else None

        async def storing() -> str | None:
            nonlocal look, looked_at_s
            if self._embedded_problem is not None:
                return self._embedded_problem
            if worker.failure is not None:
                return worker.failure
            # One look at a time, whoever asks, and each answer is as old as _DATABASE_LOOK_S at the most.
            if look is None or (look.done() and time.monotonic() - looked_at_s > _DATABASE_LOOK_S):
                looked_at_s = time.monotonic()
                look = asyncio.create_task(database.problem(_DATABASE_ANSWER_S))
            return await asyncio.shield(look)

        health = Health()
        health.add("accepting", accepting)
        health.add("queue", room)
        health.add("database", storing)
        return health


async def to_its_end(cleanup: Awaitable[object]) -> None:
    """Awaits it, and once more if we are cancelled meanwhile: half an end leaves a server behind."""
    task = asyncio.ensure_future(cleanup)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _queue_limits(settings: Settings) -> QueueLimits:
    return QueueLimits(
        rows=settings.queue_capacity,
        bytes=settings.queue_bytes,
        waiting_bytes=settings.queue_bytes // _WAITING_SHARE,
        admission_wait_s=settings.admission_wait.total_seconds(),
    )


def _pages(health: Health, telemetry: Telemetry) -> dict[str, Page]:
    async def healthz() -> tuple[int, str, bytes]:
        return json_page(200, {"status": "alive"})

    async def readyz() -> tuple[int, str, bytes]:
        problems = await health.problems()
        checks = {name: problems.get(name, "ok") for name in health.names}
        return json_page(
            503 if problems else 200, {"status": "not ready" if problems else "ready", "checks": checks}
        )

    async def metrics() -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE, telemetry.render()

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


def _countdown(seconds: float) -> Callable[[], float]:
    ends_at = time.monotonic() + seconds
    return lambda: max(0.0, ends_at - time.monotonic())
