"""The composition root: builds every stage and wires them sink-first, starts them, and stops them in reverse.

Nothing else in the package knows two stages at once, and nothing happens before `App.start`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from loguru import logger

from ingestor import __version__, page
from ingestor.access import Gate, Keys, KeysFile, KeysProblem, Need, Watch
from ingestor.batching import Backoff
from ingestor.errors import BadSetting, DataDirProblem
from ingestor.file_limit import room_for_connections
from ingestor.journal import DiskJournal, RequestIds
from ingestor.journals import Journal, disk_journal, memory_journal
from ingestor.model import Ack, Limits, Rules
from ingestor.permissions import NEEDS, with_security
from ingestor.reading import Reads
from ingestor.service import AckPolicy, IngestorService, SeriesGuard
from ingestor.settings import Settings
from ingestor.storage.database import Database
from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError
from ingestor.storage.transactions import told_by_nobody
from ingestor.storing import Storing
from ingestor.tail import Tail
from ingestor.telemetry import Health, Telemetry, measure_lag
from ingestor.telemetry.registry import CONTENT_TYPE
from ingestor.transport import columns
from ingestor.transport.bounds import HANDSHAKES_SHARE, Bounds
from ingestor.transport.grpc import GrpcServer, HealthService, Reflection
from ingestor.transport.http import Content, HttpServer, Page, documentation, fixed_page, json_page
from ingestor.transport.observing import Observed
from ingestor.transport.rpc import ColumnOptions, Descriptors, Rpc
from ingestor.transport.share import Share
from ingestor.transport.tls import ALPN_GRPC, ALPN_HTTP, Certificates, State, TlsFiles
from ingestor.transport.transcoding import Router
from ingestor.transport.transcoding.openapi import Info, describe

_GENERATED = "ingestor_api"
_EMBEDDED_BACKOFF = Backoff(first_s=1.0)
_KEYS_PROBLEM = "the file of keys can't be used, and those that were known stay in force: the log says why"
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
        self._journal: Journal | None = None
        # The page itself tells nothing: what it shows it asks for, with the key that it is given.
        self._gate = Gate({**NEEDS, **dict.fromkeys((file.path for file in page.files()), Need.NOTHING)})
        self._keys = Watch(KeysFile(settings.keys_path), self._gate)
        self._certificates: Certificates | None = None
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
            self._start_tls()
            self._start_keys()
            if self.settings.embedded:
                await self._start_embedded()
            journal, requests = await self._open_journal()
            # A journal that knows its database can wait for it; without one, a wrong address should be told at
            # once.
            may_be_gone = isinstance(journal, DiskJournal) and journal.log.database is not None
            await self._storing.begin(journal, may_be_gone=may_be_gone)
            self._ends.push_async_callback(self._drain, journal)
            return await self._start_fronts(journal, requests, self._health(journal))
        except BaseException:  # cancelled by Ctrl-C, too: whatever was started must end; it is raised again
            await self.stop(timeout_s=5.0)
            raise

    async def stop(self, timeout_s: float | None = None) -> int:
        """Stops everything in the reverse order, within `timeout_s` seconds (DRAIN_TIMEOUT unless said).
        Returns how many acknowledged metrics are lost: 0 unless the database failed us, and the disk or its
        absence."""
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

    def _start_keys(self) -> None:
        with keys_problems(self.settings):
            self._keys.begin()
        check_keys(self.settings, self._gate.keys)
        watching = asyncio.create_task(self._keys.look_again(), name="keys")
        self._ends.callback(watching.cancel)
        self.telemetry.watch_keys(
            valid=self._gate.valid, problem=lambda: float(self._keys.problem is not None)
        )

    def _start_tls(self) -> None:
        """First of all, since wrong files are an operator's mistake that a start should not take long to tell."""
        if (files := tls_files(self.settings)) is None:
            return
        telemetry = self.telemetry

        def told(state: State) -> None:
            telemetry.tls_expiry.set(state.expires.timestamp())
            telemetry.tls_reload_failing.set(state.problem is not None)

        self._certificates = Certificates(files, told=told, failed=telemetry.tls_handshake_failures.inc)
        keeper = asyncio.create_task(self._certificates.keep(), name="tls-keeper")
        self._ends.callback(keeper.cancel)

    def _context(self, protocols: tuple[str, ...]) -> ssl.SSLContext | None:
        return None if self._certificates is None else self._certificates.context(protocols)

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
        kept = journal.held_rows - journal.unwritten_rows
        if lost := await journal.end(max(1.0, self._left_s())):
            self._lost += lost
            logger.error(
                "{} metrics that were acknowledged as queued could not be written, and are lost: {}",
                lost,
                journal.problem or "the disk was too slow",
            )
        if kept > 0:
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
            "{} acknowledged metrics were not stored within DRAIN_TIMEOUT and are lost (JOURNAL=memory): {}",
            self._lost,
            self._storing.outage or "the database was too slow",
        )

    async def _start_fronts(self, journal: Journal, requests: RequestIds, health: Health) -> Addresses:
        settings = self.settings
        limits = Limits(time_past_max=settings.time_past_max, time_future_max=settings.time_future_max)
        default = journal.default_level if settings.ack is None else Ack[settings.ack.upper()]
        acks = AckPolicy(default, settings.commit_wait_max.total_seconds())
        series = SeriesGuard(
            settings.series_per_hour_max, dry_run=settings.series_per_hour_dry_run, telemetry=self.telemetry
        )
        reads = Reads(self._storing, self._tail, limits)
        service = IngestorService(
            journal, requests, Rules(limits), acks=acks, reads=reads, telemetry=self.telemetry, series=series
        )

        def observe(path: str, protocol: str) -> Observed:
            return self.telemetry.calls.count(path.removeprefix("/"), protocol).ended

        descriptors = Descriptors.of_package(_GENERATED)
        native = settings.codecs == "native" and columns.native_available()
        decoder = columns.NativeDecoder if native else columns.ReferenceDecoder
        rpcs = descriptors.bind(service, ColumnOptions(decoder, limits.rows_max))
        watch = HealthService(partial(_serving, health), {rpc.service for rpc in rpcs})
        # What tells of the server is told of, too.
        served = [*rpcs, *watch.rpcs()]
        share = Share(_bounds(settings), self.telemetry.connection_cut_off)
        grpc = GrpcServer(
            [*served, *Reflection(descriptors, {rpc.service for rpc in served}).rpcs()],
            message_bytes_max=settings.message_bytes_max,
            lane=settings.grpc_lane,
            observe=observe,
            gate=self._gate,
            share=share,
        )
        http = HttpServer(
            Router(rpcs, descriptors.pool, elements_max=limits.rows_max),
            {**_pages(health, self.telemetry, journal), **_documentation(descriptors, rpcs), **_live_page()},
            body_bytes_max=settings.message_bytes_max,
            observe=observe,
            cors_origins=settings.allowed_origins,
            gate=self._gate,
            share=share,
        )
        self.telemetry.watch_calls(grpc=lambda: grpc.in_flight, http=lambda: http.in_flight)
        self._ends.push_async_callback(self._close_fronts, grpc, watch, http)
        self._ends.callback(service.hurry)
        grpc_port = await grpc.start(settings.host, settings.grpc_port, self._context(ALPN_GRPC))
        http_port = await http.start(settings.host, settings.http_port, self._context(ALPN_HTTP))
        return Addresses(settings.host, grpc_port, http_port)

    async def _close_fronts(self, grpc: GrpcServer, watch: HealthService, http: HttpServer) -> None:
        """No new calls; those under way are answered, while the worker still makes room for them."""
        timeout_s = self._left_s() * _CALLS_SHARE

        async def drain_grpc() -> bool:
            await watch.close()
            return await grpc.drain(timeout_s)

        answered = await asyncio.gather(drain_grpc(), http.drain(timeout_s))
        if not all(answered):
            logger.warning("some calls under way were not answered within DRAIN_TIMEOUT")
        await asyncio.gather(grpc.close(), http.close())

    def _health(self, journal: Journal) -> Health:
        async def accepting() -> str | None:
            return "the server is stopping" if self.stopping else None

        async def room() -> str | None:
            if isinstance(journal, DiskJournal) and journal.problem is not None:
                return f"the journal can't be written: {journal.problem}"
            return f"the queue is full ({journal.held_rows} metrics wait)" if journal.full else None

        async def keys() -> str | None:
            # Who asks needs no key, so that where the file lies and what is in it is for the log alone.
            return _KEYS_PROBLEM if self._keys.problem is not None else None

        health = Health()
        health.add("accepting", accepting)
        health.add("queue", room)
        # A disk journal takes metrics without it, which is what it is for.
        health.add("worker", self._storing.death)
        health.add("database", self._storing.problem, vital=not journal.durable)
        # Those that are known stay in force.
        health.add("keys", keys, vital=False)
        return health


@contextmanager
def keys_problems(settings: Settings) -> Iterator[None]:
    """Around reading the keys: where they lie in DATA_DIR and can't be reached, that is the problem."""
    try:
        yield
    except KeysProblem as problem:
        if settings.keys_file is None and isinstance(problem.__cause__, OSError):
            raise DataDirProblem(str(problem)) from problem
        raise


def check_keys(settings: Settings, keys: Keys | None) -> None:
    """Raises BadSetting when there are none although a file was named, or others than this machine could call."""
    if settings.keys_file is not None and not (keys and keys.all):
        msg = (
            f"KEYS_FILE {settings.keys_file} has no keys: make one with `ingestor keys create`, or leave KEYS_FILE"
            " unset, so that callers need none"
        )
        raise BadSetting(msg)
    if not (keys and keys.all) and not (
        settings.listens_on_loopback or settings.insecure or settings.knows_its_callers
    ):
        msg = (
            f"HOST={settings.host} listens beyond loopback, and {settings.keys_path} has no keys:"
            " make one with `ingestor keys create`, or put INSECURE=true beside it if the network is private"
        )
        raise BadSetting(msg)


def tls_files(settings: Settings) -> TlsFiles | None:
    """What both ports are to speak TLS with; None when they are not."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    optional = settings.tls_client_auth == "optional"
    return TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca, client_optional=optional)


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        connections_max=room_for_connections(
            settings.connections_max,
            ports=2,
            beginning=0.0 if settings.tls_cert is None else HANDSHAKES_SHARE,
        ),
        header_timeout_s=settings.header_timeout.total_seconds(),
        request_timeout_s=settings.request_timeout.total_seconds(),
        send_timeout_s=settings.send_timeout.total_seconds(),
        idle_s=settings.connection_idle.total_seconds(),
        age_max_s=settings.connection_age_max.total_seconds(),
        receive_bytes=settings.receive_bytes,
        send_bytes=settings.send_bytes,
    )


async def _serving(health: Health) -> bool:
    """As /readyz has it."""
    return (await health.look()).status != "not ready"


async def to_its_end(cleanup: Awaitable[object]) -> None:
    """Awaits it, and once more if we are cancelled meanwhile: half an end leaves a server behind."""
    task = asyncio.ensure_future(cleanup)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _pages(health: Health, telemetry: Telemetry, journal: Journal) -> dict[str, Page]:
    async def healthz() -> Content:
        return json_page(200, {"status": "alive"})

    async def readyz() -> Content:
        looked = await health.look()
        pending = {"metrics": journal.held_rows, "oldest_age_seconds": round(journal.oldest_age_s(), 3)}
        body: dict[str, object] = {"status": looked.status, "checks": looked.checks, "pending": pending}
        if isinstance(journal, DiskJournal):
            body["journal"] = {"bytes": journal.size_bytes, "room_bytes": journal.room_bytes}
        return json_page(503 if looked.status == "not ready" else 200, body)

    async def metrics() -> Content:
        return Content(200, CONTENT_TYPE, telemetry.render())

    return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


def _live_page() -> dict[str, Page]:
    return {path: fixed_page(kind, body, page.HEADERS) for path, kind, body in page.files()}


def _documentation(descriptors: Descriptors, rpcs: list[Rpc]) -> dict[str, Page]:
    info = Info("Analytics ingestor", __version__)
    files = list(descriptors.files.values())
    document = describe(files, descriptors.pool, {rpc.path for rpc in rpcs}, info)
    return documentation(with_security(document))


def _countdown(seconds: float) -> Callable[[], float]:
    ends_at = time.monotonic() + seconds
    return lambda: max(0.0, ends_at - time.monotonic())
