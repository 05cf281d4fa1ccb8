"""What can be asked of stored metrics and what is answered, as the service and storage have it in common.

Values alone: what is a good question, others say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

from ingestor.model.spans import SeriesKey

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
