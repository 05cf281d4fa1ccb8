"""A queue that keeps what it is offered, for tests of what comes before it, and a service on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from ingestor.journal import RequestIds
from ingestor.model import Ack, DeadRow, Limits, MetricBatch, Request, Rules
from ingestor.service import AckPolicy, IngestorService, SeriesGuard
from ingestor.telemetry import Telemetry


class Recorder:
    """Takes everything, and says that all is well, or that `dead` rows were refused."""

    levels = frozenset(Ack)

    def __init__(self, dead: Sequence[DeadRow] = ()) -> None:
        self.batches: list[MetricBatch] = []
        self.terms: list[tuple[Ack, Request | None]] = []
        self.dead = dead

    async def offer(self, batch: MetricBatch, ack: Ack, request: Request | None = None) -> Sequence[DeadRow]:
        self.batches.append(batch)
        self.terms.append((ack, request))
        return self.dead if ack is Ack.COMMITTED else ()


def service_on(
    queue: Recorder,
    limits: Limits,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    *,
    requests: RequestIds | None = None,
    telemetry: Telemetry | None = None,
    commit_wait_max_s: float = 30.0,
    series: SeriesGuard | None = None,
) -> IngestorService:
    """With a default of JOURNALED; it reads nothing, for which nobody asks it."""
    telemetry = telemetry or Telemetry()
    reads: Any = None
    return IngestorService(
        queue,
        requests or RequestIds(),
        Rules(limits),
        acks=AckPolicy(Ack.JOURNALED, commit_wait_max_s),
        reads=reads,
        telemetry=telemetry,
        series=series,
        clock=clock,
    )
