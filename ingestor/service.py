"""IngestorService: checks metrics, and hands those that keep the rules to the queue, whole or not at all.

The one implementation of the API, whatever the protocol. It acknowledges what the queue has taken; it never
waits for the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from ingestor_api.analytics.v1 import (
    AnalyticsServiceBase,
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    RejectedMetric,
)

from ingestor.errors import FieldViolation, Invalid, Later
from ingestor.model import MetricBatch, Row, Rules, label_set
from ingestor.model.labels import NO_LABELS
from ingestor.model.rules import MetricFields, microseconds
from ingestor.telemetry import Telemetry

# Of a batch in which nothing is right, so many violations are told: enough to find the mistake by.
_VIOLATIONS_TOLD_MAX = 20


class Queue(Protocol):
    """Where accepted metrics go. Returns once it has them; raises Refusal when it took nothing."""

    async def offer(self, batch: MetricBatch) -> None: ...


class IngestorService(AnalyticsServiceBase):
    """The service that gRPC and HTTP call. `clock` gives the present moment in UTC."""

    def __init__(
        self,
        queue: Queue,
        rules: Rules,
        telemetry: Telemetry,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._queue = queue
        self._rules = rules
        self._telemetry = telemetry
        self._clock = clock

    async def log_metric(self, message: LogMetricRequest) -> LogMetricResponse:
        """Takes one metric. Raises Invalid, Overloaded or Unavailable; then it took nothing."""
        now = self._clock()
        if violations := self._rules.violations(message, now):
            self._count_rejected(1)
            raise Invalid.fields(violations)
        rows = _Rows(now)
        rows.add(message)
        await self._offer(MetricBatch.of_row(rows.rows[0], rows.label_sets))
        return LogMetricResponse(success=True)

    async def log_metrics(self, message: LogMetricsRequest) -> LogMetricsResponse:
        """Takes those metrics of a batch that keep the rules, and lists the others. Raises Invalid when none
        does, Overloaded or Unavailable; then it took nothing."""
        metrics = message.metrics
        self._check_size(len(metrics))
        now = self._clock()
        rows = _Rows(now)
        rejected: list[tuple[int, list[FieldViolation]]] = []
        for index, metric in enumerate(metrics):
            if violations := self._rules.violations(metric, now):
                rejected.append((index, violations))
            else:
                rows.add(metric)
        if not rows.rows:
            self._count_rejected(len(metrics))
            raise _nothing_right(rejected)
        await self._offer(MetricBatch.of_rows(rows.rows, rows.label_sets))
        self._count_rejected(len(rejected))
        return LogMetricsResponse(
            accepted=len(rows.rows),
            rejected=[
                RejectedMetric(index=index, reason="; ".join(map(str, violations)))
                for index, violations in rejected
            ],
        )

    def _check_size(self, rows: int) -> None:
        rows_max = self._rules.limits.rows_max
        if rows == 0:
            raise Invalid.fields([FieldViolation("metrics", "must not be empty")])
        if rows > rows_max:
            problem = f"has {rows} metrics, {rows_max} at most: send smaller batches"
            raise Invalid.fields([FieldViolation("metrics", problem)])

    async def _offer(self, batch: MetricBatch) -> None:
        try:
            await self._queue.offer(batch)
        except Later:
            self._telemetry.refused.inc(batch.rows)
            raise

    def _count_rejected(self, rows: int) -> None:
        # What is taken is counted as received by the queue, in the moment in which it takes it.
        if rows:
            self._telemetry.received.inc(rows)
            self._telemetry.rejected.inc(rows)


@dataclass(slots=True)
class _Rows:
    """Collects valid metrics as rows; those without a time get `now`."""

    now: datetime
    rows: list[Row] = field(default_factory=list)
    label_sets: dict[int, str] = field(default_factory=dict)

    def add(self, metric: MetricFields) -> None:
        """One metric that keeps the rules."""
        assert metric.value is not None
        label_set_id = NO_LABELS
        if metric.labels:
            labels = label_set(metric.labels)
            label_set_id = labels.id
            self.label_sets[labels.id] = labels.document
        time_us = microseconds(metric.time or self.now)
        self.rows.append(Row(time_us, metric.service_name, metric.metric_name, metric.value, label_set_id))


def _nothing_right(rejected: Sequence[tuple[int, list[FieldViolation]]]) -> Invalid:
    def told() -> Iterator[FieldViolation]:
        for index, violations in rejected:
            yield from (violation.within(f"metrics[{index}]") for violation in violations)

    first = [violation for violation, _ in zip(told(), range(_VIOLATIONS_TOLD_MAX), strict=False)]
    count = len(rejected)
    message = f"none of the {count} metrics can be taken: {first[0]}" if count > 1 else str(first[0])
    return Invalid(message, first)
