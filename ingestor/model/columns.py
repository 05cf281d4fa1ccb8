"""The rules of `ingestor.model.rules` on columns: what is good goes on as columns, what is bad is found by masks
and explained row by row.

A metric's validity never depends on its neighbours, and the reasons are those of the row rules, word for word:
a bad row is looked at again as a single metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingestor.errors import FieldViolation
from ingestor.model.batch import SCHEMA, MetricBatch
from ingestor.model.fingerprint import fingerprint
from ingestor.model.label_columns import LabelColumn, LabelReader
from ingestor.model.rules import Limits, PlainMetric, Rules, name_problem
from ingestor.timestamps import NANOS_MAX, SECONDS_MAX, SECONDS_MIN, from_nanos, microseconds, to_datetime

Mask = npt.NDArray[np.bool_]
Micros = npt.NDArray[np.int64]

_TIME = SCHEMA.field("time").type
_EARLIEST_US = microseconds(datetime.min.replace(tzinfo=UTC))
_LATEST_US = microseconds(datetime.max.replace(tzinfo=UTC))
_NAMED = ("service_name", "metric_name", "labels")
# As many become objects at once; a row alone takes five times as long.
_EXPLAINED_AT_ONCE = 250

# Of ASCII; what lies beyond is looked at more closely.
_PRINTABLE_MIN, _PRINTABLE_MAX = 0x20, 0x7E
# C0 controls and DEL, and the first byte of two that a C1 control is in UTF-8.
_SUSPICIOUS: Mask = np.zeros(256, np.bool_)
_SUSPICIOUS[:0x20] = True
_SUSPICIOUS[[0x7F, 0xC2]] = True


class Rejected(NamedTuple):
    """A metric that breaks rules: its position among the request's, and which rules."""

    position: int
    violations: list[FieldViolation]


@dataclass(frozen=True, slots=True)
class Checked:
    """`batch` holds the good rows in their order (None when there are none), `rejected` the others."""

    batch: MetricBatch | None
    rejected: list[Rejected]


class Sifted(NamedTuple):
    """The same, before it was said what is wrong with the others: there are so many `bad`, and `explained` says it
    of one after the other, each of which takes as long as checking fifty."""

    batch: MetricBatch | None
    bad: int
    explained: Iterator[Rejected]

    def checked(self) -> Checked:
        """With all of them explained."""
        return Checked(self.batch, list(self.explained))


class ColumnRules:
    """Checks whole columns of metrics."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._labels = LabelReader(rules.limits)

    def fingerprint(self, method: str, metrics: pa.StructArray) -> bytes:
        """Of a call of `method` with these metrics; `metrics` as for `check`."""
        services, names, values, times, labels = metrics.flatten()
        seconds, nanos = (column.to_numpy(zero_copy_only=False) for column in _children(times))
        early = seconds < SECONDS_MIN
        late = (seconds > SECONDS_MAX) | (nanos < 0) | (nanos > NANOS_MAX)
        # As `to_datetime` does; what would overflow is not looked at.
        moments = np.select(
            [early, late],
            [_EARLIEST_US, _LATEST_US],
            np.clip(seconds, SECONDS_MIN, SECONDS_MAX) * 1_000_000 + nanos // 1_000,
        )
        time_us = pa.array(moments, mask=times.is_null().to_numpy(zero_copy_only=False))
        return fingerprint(method, [services, names, values, time_us, self._label_ids(labels)])

    def series_fingerprint(self, method: str, series: pa.StructArray) -> bytes:
        """Of a call of `method` with these series; `series` as for `check_series`."""
        services, names, labels, times, values = series.flatten()
        lengths = times.value_lengths()
        columns = [services, names, self._label_ids(labels), lengths, times.flatten(), values.flatten()]
        return fingerprint(method, columns)

    def _label_ids(self, labels: pa.MapArray) -> pa.Array:
        column = self._labels.read(labels)
        return pa.array(np.zeros(len(labels), np.int64) if column is None else column.ids)

    def check(self, metrics: pa.StructArray, now: datetime) -> Checked:
        """`sift`, with reasons."""
        return self.sift(metrics, now).checked()

    def sift(self, metrics: pa.StructArray, now: datetime) -> Sifted:
        """`metrics` has the fields service_name, metric_name (string), value (double, null when unset), time
        (struct of seconds and nanos, null when unset) and labels (map of strings)."""
        limits = self._rules.limits
        services, names, values, times, labels = metrics.flatten()
        time_us, good = _times(times, limits, now)
        for column in (services, names):
            good = good & _good_names(column, limits.name_bytes_max)
        good = good & _finite(values)
        label_column = self._labels.read(labels)
        if label_column is not None:
            good = good & label_column.good
        if good.all():
            return Sifted(_batch(services, names, values, time_us, label_column), 0, iter(()))
        bad = np.flatnonzero(~good)
        explained = self._explained(bad, partial(_metrics, metrics), now)
        if not good.any():
            return Sifted(None, len(bad), explained)
        kept = pa.array(good)
        services, names, values = (column.filter(kept) for column in (services, names, values))
        label_column = None if label_column is None else label_column.filter(good)
        return Sifted(_batch(services, names, values, time_us[good], label_column), len(bad), explained)

    def check_series(self, series: pa.StructArray, now: datetime) -> Checked:
        """`sift_series`, with reasons."""
        return self.sift_series(series, now).checked()

    def sift_series(self, series: pa.StructArray, now: datetime) -> Sifted:
        """`series` has the fields service_name, metric_name (string), labels (map of strings), time_unix_nano (list
        of int64) and value (list of double), both lists of one length. Positions count points across series."""
        limits = self._rules.limits
        services, names, labels, times, values = series.flatten()
        of_series = np.repeat(np.arange(len(series)), times.value_lengths().to_numpy())
        time_us: Micros = times.flatten().to_numpy() // 1_000
        label_column = self._labels.read(labels)
        good_series: Mask = np.ones(len(series), np.bool_)
        for column in (services, names):
            good_series &= _good_names(column, limits.name_bytes_max)
        if label_column is not None:
            good_series &= label_column.good
        times, values = times.flatten(), values.flatten()
        good: Mask = good_series[of_series] & _finite(values) & _in_range(time_us, limits, now)
        bad = np.flatnonzero(~good)
        explained = self._explained(bad, partial(_points, series, of_series, times, values), now)
        if len(bad):
            of_series, time_us, values = of_series[good], time_us[good], values.filter(pa.array(good))
        if not len(time_us):
            return Sifted(None, len(bad), explained)
        rows = pa.array(of_series)
        label_column = None if label_column is None else label_column.take(of_series)
        batch = _batch(services.take(rows), names.take(rows), values, time_us, label_column)
        return Sifted(batch, len(bad), explained)

    def _explained(
        self, bad: npt.NDArray[np.int64], made: Callable[[pa.Array], list[PlainMetric]], now: datetime
    ) -> Iterator[Rejected]:
        for begun in range(0, len(bad), _EXPLAINED_AT_ONCE):
            positions = bad[begun : begun + _EXPLAINED_AT_ONCE]
            for position, metric in zip(positions.tolist(), made(pa.array(positions)), strict=True):
                yield Rejected(position, self._violations(metric, now))

    def _violations(self, metric: PlainMetric, now: datetime) -> list[FieldViolation]:
        violations = self._rules.violations(metric, now)
        assert violations, "the column rules refuse what the row rules take"
        return violations


def _metrics(metrics: pa.StructArray, positions: pa.Array) -> list[PlainMetric]:
    services, names, values, times, labels = (
        column.to_pylist() for column in metrics.take(positions).flatten()
    )
    return [
        PlainMetric(
            service, name, value, time and to_datetime(time["seconds"], time["nanos"]), dict(label_pairs)
        )
        for service, name, value, time, label_pairs in zip(
            services, names, values, times, labels, strict=True
        )
    ]


def _points(
    series: pa.StructArray,
    of_series: npt.NDArray[np.int64],
    times: pa.Array,
    values: pa.Array,
    positions: pa.Array,
) -> list[PlainMetric]:
    of_each = pa.array(of_series[positions.to_numpy()])
    services, names, labels = (series.field(name).take(of_each).to_pylist() for name in _NAMED)
    nanos, each_value = times.take(positions).to_pylist(), values.take(positions).to_pylist()
    return [
        PlainMetric(service, name, value, from_nanos(nano), dict(label_pairs))
        for service, name, value, nano, label_pairs in zip(
            services, names, each_value, nanos, labels, strict=True
        )
    ]


def _times(times: pa.StructArray, limits: Limits, now: datetime) -> tuple[Micros, Mask | np.bool_]:
    """Microseconds since 1970, `now` where unset, and which of them lie in the accepted range."""
    seconds, nanos = (column.to_numpy(zero_copy_only=False) for column in _children(times))
    if not times.null_count and _surely_in_range(seconds, nanos, limits, now):
        return seconds * 1_000_000 + nanos // 1_000, np.True_
    # First, because the microseconds of what lies beyond would overflow.
    ranged = (seconds >= SECONDS_MIN) & (seconds <= SECONDS_MAX) & (nanos >= 0) & (nanos <= NANOS_MAX)
    time_us: Micros = np.where(ranged, seconds, 0) * 1_000_000 + nanos // 1_000
    good: Mask = ranged & _in_range(time_us, limits, now)
    if times.null_count:
        unset = times.is_null().to_numpy(zero_copy_only=False)
        time_us[unset] = microseconds(now)
        good |= unset
    return time_us, good


def _surely_in_range(
    seconds: npt.NDArray[np.int64], nanos: npt.NDArray[np.int32], limits: Limits, now: datetime
) -> bool:
    """Whether all whole seconds lie within the accepted range by more than any nanoseconds can change."""
    present = int(now.timestamp())
    return bool(
        seconds.min() > present - limits.time_past_max.total_seconds() + 1
        and seconds.max() < present + limits.time_future_max.total_seconds() - 1
        and nanos.min() >= 0
        and nanos.max() <= NANOS_MAX
    )


def _in_range(time_us: Micros, limits: Limits, now: datetime) -> Mask:
    earliest = microseconds(now - limits.time_past_max)
    latest = microseconds(now + limits.time_future_max)
    good: Mask = (time_us >= earliest) & (time_us <= latest)
    return good


def _children(times: pa.StructArray) -> Sequence[pa.Array]:
    """Both integers without nulls: under a null struct lie zeros or nulls, as the decoder pleases."""
    columns = [times.field(index) for index in range(2)]
    return [column.fill_null(0) if column.null_count else column for column in columns]


def _good_names(names: pa.StringArray, bytes_max: int) -> Mask | np.bool_:
    """Most columns hold nothing that could be wrong, which their bytes tell at once; else each distinct name (they
    repeat) is looked at."""
    if _surely_good(names, bytes_max):
        return np.True_
    encoded = names.dictionary_encode()
    problems = [name_problem(name, bytes_max) is None for name in encoded.dictionary.to_pylist()]
    good: Mask = np.array(problems)[encoded.indices.to_numpy()]
    return good


def _surely_good(names: pa.StringArray, bytes_max: int) -> bool:
    """Whether no name is empty or too long, and no byte is a control character or may begin one of U+0080 ff."""
    _, offsets_buffer, data_buffer = names.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[names.offset : names.offset + len(names) + 1]
    lengths = offsets[1:] - offsets[:-1]
    if lengths.min() == 0 or lengths.max() > bytes_max:
        return False
    data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    if data.min() >= _PRINTABLE_MIN and data.max() <= _PRINTABLE_MAX:
        return True
    return not _SUSPICIOUS[data].any()


def _finite(values: pa.DoubleArray) -> Mask:
    # A null becomes NaN in numpy, so one test finds what is unset, too.
    good: Mask = np.isfinite(values.to_numpy(zero_copy_only=False))
    return good


def _batch(
    services: pa.Array, names: pa.Array, values: pa.Array, time_us: Micros, labels: LabelColumn | None
) -> MetricBatch:
    ids = np.zeros(len(time_us), np.int64) if labels is None else labels.ids
    times = pa.Array.from_buffers(_TIME, len(time_us), [None, pa.py_buffer(time_us)])
    columns = pa.RecordBatch.from_arrays([times, services, names, values, pa.array(ids)], schema=SCHEMA)
    return MetricBatch.of_columns(columns, {} if labels is None else labels.documents)
