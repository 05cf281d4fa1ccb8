"""What can be asked of stored metrics and what is answered, as the service and storage have it in common.

Values alone: what is a good question, others say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from ingestor.model.spans import SeriesKey
from ingestor.timestamps import from_micros

Aggregation: TypeAlias = Literal["avg", "min", "max", "sum", "count", "last", "p50", "p95", "p99"]

EVERYTHING = ("",)
"""The prefixes of services that a reader may see who may see all of them."""


@dataclass(frozen=True, slots=True)
class MetricQuestion:
    """One metric's values from `start` until before `end`, aggregated by `interval`s that begin at whole multiples
    of it since 1970-01-01 UTC; only rows that have all of `labels`."""

    service_name: str
    metric_name: str
    start: datetime
    end: datetime
    interval: timedelta
    aggregation: Aggregation
    labels: Mapping[str, str]


class MetricPoint(NamedTuple):
    """`time` is the beginning of an interval that has rows."""

    time: datetime
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class MetricPoints(Sequence[MetricPoint]):
    """Points in the order of time, as columns: microseconds since 1970-01-01 UTC, and values. A point is made when
    somebody looks at it."""

    times_us: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    @classmethod
    def none(cls) -> MetricPoints:
        """No points."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float64))

    def __len__(self) -> int:
        return len(self.times_us)

    @overload
    def __getitem__(self, place: int) -> MetricPoint: ...
    @overload
    def __getitem__(self, place: slice) -> MetricPoints: ...
    def __getitem__(self, place: int | slice) -> MetricPoint | MetricPoints:
        if isinstance(place, slice):
            return MetricPoints(self.times_us[place], self.values[place])
        return MetricPoint(from_micros(int(self.times_us[place])), float(self.values[place]))

    def __iter__(self) -> Iterator[MetricPoint]:
        times = map(from_micros, self.times_us.tolist())
        return (MetricPoint(*point) for point in zip(times, self.values.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class SeriesQuestion:
    """At most `limit` series behind `after`, by their names' bytes, whose names begin with these prefixes; services
    also with one of `readable`."""

    service_prefix: str
    metric_prefix: str
    after: SeriesKey
    limit: int
    readable: tuple[str, ...] = EVERYTHING


class StoredSeries(NamedTuple):
    """A series, and the times of its earliest and latest row."""

    service_name: str
    metric_name: str
    first_time: datetime
    last_time: datetime
