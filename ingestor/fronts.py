"""The service, and both protocols' servers before it: what they offer, their pages, and their bounds.

Part of the composition root. It takes no call before all that a call needs is there, and leaves none that is under
way without an answer while there is time.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from loguru import logger

from ingestor import __version__, page
from ingestor.access import Gate
from ingestor.file_limit import room_for_connections
from ingestor.journal import DiskJournal, RequestIds
from ingestor.journals import Journal
from ingestor.model import Ack, Limits, Rules
from ingestor.permissions import with_security
from ingestor.reading import Reads
from ingestor.reading.reads import Reader, Tail
from ingestor.service import AckPolicy, IngestorService, SeriesGuard
from ingestor.settings import Settings
from ingestor.telemetry import Health, Telemetry
from ingestor.telemetry.registry import CONTENT_TYPE
from ingestor.transport import columns
from ingestor.transport.bounds import HANDSHAKES_SHARE, Bounds
from ingestor.transport.grpc import GrpcServer, HealthService, Reflection
from ingestor.transport.http import Content, HttpServer, Page, documentation, fixed_page, json_page
from ingestor.transport.observing import Observed
from ingestor.transport.rpc import ColumnOptions, Descriptors, Rpc
from ingestor.transport.share import Share
from ingestor.transport.tls import ALPN_GRPC, ALPN_HTTP
from ingestor.transport.transcoding import Router
from ingestor.transport.transcoding.openapi import Info, describe

_GENERATED = "ingestor_api"
# So long before connections are closed by force, those who wait for a commit are told that it was not seen.
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a started app listens."""

    host: str
    grpc_port: int
    http_port: int


@dataclass(frozen=True, slots=True)
class Behind:
    """What calls are answered from."""

    journal: Journal
    requests: RequestIds
    reader: Reader
    tail: Tail
    health: Health


class Fronts:
    """`start`, then `close`; in between both ports are listened on."""

    def __init__(self, settings: Settings, telemetry: Telemetry, gate: Gate, behind: Behind) -> None:
        self._settings = settings
        self._telemetry = telemetry
        limits = Limits(time_past_max=settings.time_past_max, time_future_max=settings.time_future_max)
        self._journal = behind.journal
        self._service = _service(settings, telemetry, limits, behind)
        descriptors = Descriptors.of_package(_GENERATED)
        native = settings.codecs == "native" and columns.native_available()
        decoder = columns.NativeDecoder if native else columns.ReferenceDecoder
        rpcs = descriptors.bind(self._service, ColumnOptions(decoder, limits.rows_max))
        self._watch = HealthService(partial(_serving, behind.health), {rpc.service for rpc in rpcs})
        # What tells of the server is told of, too.
        served = [*rpcs, *self._watch.rpcs()]
        share = Share(_bounds(settings), telemetry.connection_cut_off)
        self._grpc = GrpcServer(
            [*served, *Reflection(descriptors, {rpc.service for rpc in served}).rpcs()],
            message_bytes_max=settings.message_bytes_max,
            lane=settings.grpc_lane,
            observe=self._observe,
            gate=gate,
            share=share,
        )
        pages = _pages(behind.health, telemetry, behind.journal)
        self._http = HttpServer(
            Router(rpcs, descriptors.pool, elements_max=limits.rows_max),
            {**pages, **_documentation(descriptors, rpcs), **_live_page()},
            body_bytes_max=settings.message_bytes_max,
            observe=self._observe,
            cors_origins=settings.allowed_origins,
            gate=gate,
            share=share,
        )
        telemetry.watch_calls(grpc=lambda: self._grpc.in_flight, http=lambda: self._http.in_flight)

    async def start(self, context: Callable[[tuple[str, ...]], ssl.SSLContext | None]) -> Addresses:
        """Listens; `context` gives what a port of these protocols speaks TLS with. Raises AddressProblem."""
        settings = self._settings
        grpc_port = await self._grpc.start(settings.host, settings.grpc_port, context(ALPN_GRPC))
        http_port = await self._http.start(settings.host, settings.http_port, context(ALPN_HTTP))
        return Addresses(settings.host, grpc_port, http_port)

    async def close(self, timeout_s: float) -> None:
        """No new calls; those under way are answered, while the worker still makes room for them, within so many
        seconds. Who waits for a commit that does not come is told before they are over."""
        self._service.hurry()
        last_words_s = min(_LAST_WORDS_S, timeout_s / 2)
        last_words = asyncio.get_running_loop().call_later(
            timeout_s - last_words_s, self._journal.give_up_commits
        )
        answered = await asyncio.gather(self._drain_grpc(timeout_s), self._http.drain(timeout_s))
        last_words.cancel()
        if not all(answered):
            logger.warning("some calls under way were not answered within DRAIN_TIMEOUT")
        await asyncio.gather(self._grpc.close(), self._http.close())

    async def _drain_grpc(self, timeout_s: float) -> bool:
        await self._watch.close()
        return await self._grpc.drain(timeout_s)

    def _observe(self, path: str, protocol: str) -> Observed:
        return self._telemetry.calls.count(path.removeprefix("/"), protocol).ended


def _service(settings: Settings, telemetry: Telemetry, limits: Limits, behind: Behind) -> IngestorService:
    journal = behind.journal
    default = journal.default_level if settings.ack is None else Ack[settings.ack.upper()]
    return IngestorService(
        journal,
        behind.requests,
        Rules(limits),
        acks=AckPolicy(default, settings.commit_wait_max.total_seconds()),
        reads=Reads(behind.reader, behind.tail, limits),
        telemetry=telemetry,
        series=SeriesGuard(
            settings.series_per_hour_max, dry_run=settings.series_per_hour_dry_run, telemetry=telemetry
        ),
    )


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
