"""IngestorService: checks metrics, and hands those that keep the rules to the queue, whole or not at all.

The one implementation of the API, whatever the protocol. It acknowledges what the queue has taken; it never
waits for the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa
from ingestor_api.analytics.v1 import (
    AnalyticsServiceBase,
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    RejectedMetric,
)

from ingestor.errors import VIOLATIONS_TOLD_MAX, FieldViolation, Invalid, Later
from ingestor.model import MetricBatch, Row, Rules, label_set
from ingestor.model.columns import Checked, ColumnRules, Rejected
from ingestor.model.labels import NO_LABELS
from ingestor.model.rules import MetricFields
from ingestor.telemetry import Telemetry
from ingestor.timestamps import microseconds

# Of one metric of a batch; there may be 50,000 of them.
_REASONS_TOLD_MAX = 3
# A check of more rows than this may take longer than the event loop should stand still: off to a thread.
_INLINE_ROWS_MAX = 5_000


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
        self._column_rules = ColumnRules(rules)
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
        del message  # what waits for room is the batch alone, which is what the bounds count
        await self._offer(MetricBatch.of_row(rows.rows[0], rows.label_sets))
        return LogMetricResponse(success=True)

    async def log_metrics(self, message: LogMetricsRequest) -> LogMetricsResponse:
        """Takes those metrics of a batch that keep the rules, and lists the others. Raises Invalid when none
        does, Overloaded or Unavailable; then it took nothing."""
        checked = self._checked(message.metrics)
        # What waits for room from here on is the batch alone, which is what the bounds count.
        del message
        return await self._take(checked)

    def _checked(self, metrics: Sequence[MetricFields]) -> Checked:
        self._check_size(len(metrics))
        now = self._clock()
        rows = _Rows(now)
        rejected: list[Rejected] = []
        for position, metric in enumerate(metrics):
            if violations := self._rules.violations(metric, now):
                rejected.append(Rejected(position, violations))
            else:
                rows.add(metric)
        return Checked(MetricBatch.of_rows(rows.rows, rows.label_sets) if rows.rows else None, rejected)

    async def log_metrics_columns(self, request: pa.RecordBatch) -> LogMetricsResponse:
        """`log_metrics` for a request that was decoded to columns: the same answers, without an object a row."""
        metrics = request.column("metrics").flatten()
        self._check_size(len(metrics))
        now = self._clock()
        if len(metrics) > _INLINE_ROWS_MAX:
            checked = await asyncio.to_thread(self._column_rules.check, metrics, now)
        else:
            checked = self._column_rules.check(metrics, now)
        del request, metrics
        return await self._take(checked)

    async def _take(self, checked: Checked) -> LogMetricsResponse:
        if checked.batch is None:
            self._count_rejected(len(checked.rejected))
            raise _nothing_right(checked.rejected)
        await self._offer(checked.batch)
        self._count_rejected(len(checked.rejected))
        return LogMetricsResponse(
            accepted=checked.batch.rows,
            rejected=[
                RejectedMetric(index=position, reason=_reason(violations))
                for position, violations in checked.rejected
            ],
        )

    def _check_size(self, rows: int) -> None:
        rows_max = self._rules.limits.rows_max
        if rows == 0:
            raise Invalid.fields([FieldViolation("metrics", "must not be empty")])
        if rows > rows_max:
            self._count_rejected(rows)
            problem = f"has {rows} metrics, {rows_max} at most: send smaller batches"
            raise Invalid.fields([FieldViolation("metrics", problem)])

    async def _offer(self, batch: MetricBatch) -> None:
        try:
            await self._queue.offer(batch)
        except Later:
            self._telemetry.refused.inc(batch.rows)
            raise
        except Invalid:
            self._count_rejected(batch.rows)
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


def _reason(violations: Sequence[FieldViolation]) -> str:
    told = "; ".join(map(str, violations[:_REASONS_TOLD_MAX]))
    more = len(violations) - _REASONS_TOLD_MAX
    return f"{told}; and {more} more" if more > 0 else told


def _nothing_right(rejected: Sequence[Rejected]) -> Invalid:
    def told() -> Iterator[FieldViolation]:
        for position, violations in rejected:
            yield from (violation.within(f"metrics[{position}]") for violation in violations)

    first = [violation for violation, _ in zip(told(), range(VIOLATIONS_TOLD_MAX), strict=False)]
    count = len(rejected)
    message = f"none of the {count} metrics can be taken: {first[0]}" if count > 1 else str(first[0])
    return Invalid(message, first)
