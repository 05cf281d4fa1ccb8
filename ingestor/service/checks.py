"""Makes rows of what requests hold, by the rules: of messages an object a row, of columns none.

A request that is empty or too large is refused as a whole; of one bad metric among good ones it says what is wrong,
and leaves it out. It knows neither callers nor the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

import pyarrow as pa

from ingestor.errors import FieldViolation, Invalid
from ingestor.model import LabelSet, MetricBatch, Row, Rules, label_set
from ingestor.model.columns import ColumnRules, Rejected, Sifted
from ingestor.model.labels import NO_LABELS
from ingestor.model.rules import MetricFields
from ingestor.telemetry import Telemetry
from ingestor.timestamps import microseconds

# A check of more rows than this may take longer than the event loop should stand still: off to a thread.
_INLINE_ROWS_MAX = 5_000
_UNLABELED: Mapping[int, str] = MappingProxyType({})


class Checks:
    """`clock` gives the present moment in UTC."""

    def __init__(self, rules: Rules, clock: Callable[[], datetime], telemetry: Telemetry) -> None:
        self.rules = rules
        self.columns = ColumnRules(rules)
        self.clock = clock
        self._telemetry = telemetry

    def one(self, metric: MetricFields) -> MetricBatch:
        """The one metric of a request. Raises Invalid."""
        now = self.clock()
        if violations := self.rules.violations(metric, now):
            self._telemetry.count_rejected(1)
            raise Invalid.fields(violations)
        row, labels = _row(metric, now)
        return MetricBatch.of_row(row, {labels.id: labels.document} if labels else _UNLABELED)

    async def many(self, metrics: Sequence[MetricFields]) -> Sifted:
        """The metrics of a bulk request, in one turn of the event loop."""
        now = self.clock()
        rows = _Rows(now)
        rejected: list[Rejected] = []
        for position, metric in enumerate(metrics):
            if violations := self.rules.violations(metric, now):
                rejected.append(Rejected(position, violations))
            else:
                rows.add(metric)
        batch = MetricBatch.of_rows(rows.rows, rows.label_sets) if rows.rows else None
        return Sifted(batch, len(rejected), iter(rejected))

    async def columnar(
        self, sift: Callable[[pa.StructArray, datetime], Sifted], columns: list[pa.StructArray], rows: int
    ) -> Sifted:
        """The same of what was decoded to columns, by one of `self.columns`' ways to sift. `columns` is emptied:
        nobody keeps a request that was checked."""
        now = self.clock()
        if rows > _INLINE_ROWS_MAX:
            return await asyncio.to_thread(sift, columns.pop(), now)
        return sift(columns.pop(), now)

    def check_series(self, lengths: Sequence[tuple[int, int]]) -> None:
        """Of each series, how many times and values it has. Raises Invalid."""
        for number, (times, values) in enumerate(lengths):
            if times != values:
                problem = f"has {values} values for {times} times"
                raise Invalid.fields([FieldViolation(f"series[{number}].value", problem)])
        self.check_size(sum(times for times, _ in lengths), "series", "points")

    def check_size(self, rows: int, field_name: str = "metrics", what: str = "metrics") -> None:
        """Raises Invalid for a request that has none, or too many."""
        rows_max = self.rules.limits.rows_max
        if rows == 0:
            problem = "must not be empty" if field_name == what else f"must have {what}"
            raise Invalid.fields([FieldViolation(field_name, problem)])
        if rows > rows_max:
            self._telemetry.count_rejected(rows)
            problem = f"has {rows} {what}, {rows_max} at most: send smaller batches"
            raise Invalid.fields([FieldViolation(field_name, problem)])


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
