"""IngestorService: checks metrics, and hands those that keep the rules to the queue, whole or not at all.

The one implementation of the API, whatever the protocol. It acknowledges what the queue has taken; it never
waits for the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Protocol

import pyarrow as pa
from ingestor_api.analytics.v1 import (
    AnalyticsServiceBase,
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    RejectedMetric,
    WriteSeriesRequest,
    WriteSeriesResponse,
)

from ingestor.errors import VIOLATIONS_TOLD_MAX, FieldViolation, Invalid, Later
from ingestor.model import LabelSet, MetricBatch, Row, Rules, label_set
from ingestor.model.columns import Checked, ColumnRules, Rejected
from ingestor.model.labels import NO_LABELS
from ingestor.model.rules import MetricFields, PlainMetric
from ingestor.telemetry import Telemetry
from ingestor.timestamps import from_nanos, microseconds

# Of one metric of a batch; there may be 50,000 of them.
_REASONS_TOLD_MAX = 3
# A check of more rows than this may take longer than the event loop should stand still: off to a thread.
_INLINE_ROWS_MAX = 5_000
# Telling what is wrong with one row takes as long as checking fifty.
_INLINE_REJECTIONS_MAX = 1_000
_UNLABELED: Mapping[int, str] = MappingProxyType({})


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
        row, labels = _row(message, now)
        del message  # what waits for room is the batch alone, which is what the bounds count
        await self._offer(MetricBatch.of_row(row, {labels.id: labels.document} if labels else _UNLABELED))
        return LogMetricResponse(success=True)

    async def log_metrics(self, message: LogMetricsRequest) -> LogMetricsResponse:
        """Takes those metrics of a batch that keep the rules, and lists the others. Raises Invalid when none
        does, Overloaded or Unavailable; then it took nothing."""
        self._check_size(len(message.metrics))
        checked = self._checked(message.metrics)
        # What waits for room from here on is the batch alone, which is what the bounds count.
        del message
        accepted, rejected = await self._taken(checked, "metrics")
        return LogMetricsResponse(accepted=accepted, rejected=rejected)

    def _checked(self, metrics: Sequence[MetricFields]) -> Checked:
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
        metrics = request.column("metrics").values
        self._check_size(len(metrics))
        checked = await self._in_time(self._column_rules.check, metrics, len(metrics))
        del request, metrics
        accepted, rejected = await self._taken(checked, "metrics")
        return LogMetricsResponse(accepted=accepted, rejected=rejected)

    async def write_series(self, message: WriteSeriesRequest) -> WriteSeriesResponse:
        """Takes those points of some series that keep the rules, and lists the others. Raises Invalid when none
        does or a series' lists differ in length, Overloaded or Unavailable; then it took nothing."""
        lengths = [(len(series.time_unix_nano), len(series.value)) for series in message.series]
        self._check_series(lengths)
        points = [
            PlainMetric(series.service_name, series.metric_name, value, from_nanos(nanos), series.labels)
            for series in message.series
            for nanos, value in zip(series.time_unix_nano, series.value, strict=True)
        ]
        checked = self._checked(points)
        del message, points
        accepted, rejected = await self._taken(checked, "points")
        return WriteSeriesResponse(accepted=accepted, rejected=rejected)

    async def write_series_columns(self, request: pa.RecordBatch) -> WriteSeriesResponse:
        """`write_series` for a request that was decoded to columns: the same answers, without an object a point."""
        series = request.column("series").values
        lengths = [series.field(name).value_lengths().to_pylist() for name in ("time_unix_nano", "value")]
        self._check_series(list(zip(*lengths, strict=True)))
        checked = await self._in_time(self._column_rules.check_series, series, sum(lengths[0]))
        del request, series
        accepted, rejected = await self._taken(checked, "points")
        return WriteSeriesResponse(accepted=accepted, rejected=rejected)

    async def _in_time(
        self, check: Callable[[pa.StructArray, datetime], Checked], columns: pa.StructArray, rows: int
    ) -> Checked:
        now = self._clock()
        if rows > _INLINE_ROWS_MAX:
            return await asyncio.to_thread(check, columns, now)
        return check(columns, now)

    async def _taken(self, checked: Checked, list_name: str) -> tuple[int, list[RejectedMetric]]:
        """Offers what is good of a request's `list_name`; how many that were, and the others with their reasons."""
        if checked.batch is None:
            self._count_rejected(len(checked.rejected))
            raise _nothing_right(checked.rejected, list_name)
        await self._offer(checked.batch)
        self._count_rejected(len(checked.rejected))
        if len(checked.rejected) > _INLINE_REJECTIONS_MAX:
            return checked.batch.rows, await asyncio.to_thread(_told, checked.rejected)
        return checked.batch.rows, _told(checked.rejected)

    def _check_series(self, lengths: Sequence[tuple[int, int]]) -> None:
        for number, (times, values) in enumerate(lengths):
            if times != values:
                problem = f"has {values} values for {times} times"
                raise Invalid.fields([FieldViolation(f"series[{number}].value", problem)])
        self._check_size(sum(times for times, _ in lengths), "series", "points")

    def _check_size(self, rows: int, field_name: str = "metrics", what: str = "metrics") -> None:
        rows_max = self._rules.limits.rows_max
        if rows == 0:
            problem = "must not be empty" if field_name == what else f"must have {what}"
            raise Invalid.fields([FieldViolation(field_name, problem)])
        if rows > rows_max:
            self._count_rejected(rows)
            problem = f"has {rows} {what}, {rows_max} at most: send smaller batches"
            raise Invalid.fields([FieldViolation(field_name, problem)])

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
        row, labels = _row(metric, self.now)
        self.rows.append(row)
        if labels is not None:
            self.label_sets[labels.id] = labels.document


def _row(metric: MetricFields, now: datetime) -> tuple[Row, LabelSet | None]:
    assert metric.value is not None
    labels = label_set(metric.labels) if metric.labels else None
    label_set_id = NO_LABELS if labels is None else labels.id
    time_us = microseconds(metric.time or now)
    return Row(time_us, metric.service_name, metric.metric_name, metric.value, label_set_id), labels


def _told(rejected: Sequence[Rejected]) -> list[RejectedMetric]:
    return [RejectedMetric(index=position, reason=_reason(violations)) for position, violations in rejected]


def _reason(violations: Sequence[FieldViolation]) -> str:
    told = "; ".join(map(str, violations[:_REASONS_TOLD_MAX]))
    more = len(violations) - _REASONS_TOLD_MAX
    return f"{told}; and {more} more" if more > 0 else told


def _nothing_right(rejected: Sequence[Rejected], list_name: str) -> Invalid:
    def told() -> Iterator[FieldViolation]:
        for position, violations in rejected:
            yield from (violation.within(f"{list_name}[{position}]") for violation in violations)

    first = [violation for violation, _ in zip(told(), range(VIOLATIONS_TOLD_MAX), strict=False)]
    count = len(rejected)
    message = f"none of the {count} {list_name} can be taken: {first[0]}" if count > 1 else str(first[0])
    return Invalid(message, first)
