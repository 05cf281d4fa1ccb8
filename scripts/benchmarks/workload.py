"""Rows to send and to store, distinct and a little out of order, and the requests that carry them.

Values are random, time moves by 10 ms a round of all series, one row in twenty is up to ten minutes late; what is
sent twice would be stored twice, and compressed better than anybody's metrics.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from ingestor.model import MetricBatch, Row, label_set
from ingestor.transport.rpc import Descriptors

_POOL = Descriptors.of_package("ingestor_api").pool
_ROUND_US, _JITTER_US, _LATE_US = 10_000, 1_000, 600_000_000
_LATE_SHARE = 0.05


def message_class(name: str) -> Any:
    """The upb class of a message of the API."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"analytics.v1.{name}"))


@dataclass(frozen=True, slots=True)
class Point:
    """One metric: `series` is its series' number."""

    series: int
    time_us: int
    value: float


@dataclass(frozen=True)
class Workload:
    """So many rows over so many series, each with so many labels."""

    rows: int
    series: int = 100
    labels: int = 0

    def names(self, series: int) -> tuple[str, str]:
        """A series' service and metric: ten metrics a service."""
        services = max(1, self.series // 10)
        return f"service-{series % services}", f"metric_{series // services}"

    def labels_of(self, series: int) -> dict[str, str]:
        """A series' labels, its own."""
        return {f"label_{number}": f"value-{number}-{series}" for number in range(self.labels)}

    def points(self) -> Iterator[Point]:
        """In the order in which they are sent."""
        chance = random.Random(7)  # noqa: S311 - the same rows for every contender
        start_us = time.time_ns() // 1_000 - 3_600_000_000
        for number in range(self.rows):
            series = number % self.series
            time_us = start_us + number // self.series * _ROUND_US + chance.randrange(_JITTER_US)
            if chance.random() < _LATE_SHARE:
                time_us -= chance.randrange(_LATE_US)
            yield Point(series, time_us, chance.random() * 100)

    def log_metric(self) -> list[bytes]:
        """LogMetric requests, one a row."""
        kind = message_class("LogMetricRequest")
        return [self._filled(kind(), point).SerializeToString() for point in self.points()]

    def log_metrics(self, size: int) -> list[bytes]:
        """LogMetrics requests of `size` rows."""
        kind = message_class("LogMetricsRequest")
        requests = []
        for part in self._parts(size):
            request = kind()
            for point in part:
                self._filled(request.metrics.add(), point)
            requests.append(request.SerializeToString())
        return requests

    def write_series(self, size: int, points_each: int) -> list[bytes]:
        """WriteSeries requests of `size` rows: `points_each` of each of a few series."""
        kind = message_class("WriteSeriesRequest")
        by_series: dict[int, list[Point]] = {}
        for point in self.points():
            by_series.setdefault(point.series, []).append(point)
        chunks = [
            points[start : start + points_each]
            for points in by_series.values()
            for start in range(0, len(points), points_each)
        ]
        each = max(1, size // points_each)
        requests = []
        for start in range(0, len(chunks), each):
            request = kind()
            for chunk in chunks[start : start + each]:
                names = self.names(chunk[0].series)
                series = request.series.add(service_name=names[0], metric_name=names[1])
                series.labels.update(self.labels_of(chunk[0].series))
                series.time_unix_nano.extend(point.time_us * 1_000 for point in chunk)
                series.value.extend(point.value for point in chunk)
            requests.append(request.SerializeToString())
        return requests

    def json_metric(self) -> list[bytes]:
        """JSON bodies of one row."""
        return [json.dumps(self._json(point)).encode() for point in self.points()]

    def json_batch(self, size: int) -> list[bytes]:
        """JSON bodies of `size` rows."""
        return [
            json.dumps({"metrics": [self._json(point) for point in part]}).encode()
            for part in self._parts(size)
        ]

    def batches(self, size: int) -> Iterator[MetricBatch]:
        """The same rows as the table gets them."""
        sets = [label_set(self.labels_of(series)) for series in range(self.series)] if self.labels else []
        documents = {each.id: each.document for each in sets}
        ids = [each.id for each in sets] or [0] * self.series
        for part in self._parts(size):
            rows = [Row(p.time_us, *self.names(p.series), p.value, ids[p.series]) for p in part]
            yield MetricBatch.of_rows(rows, documents)

    def _parts(self, size: int) -> Iterator[list[Point]]:
        points = self.points()
        while part := list(islice(points, size)):
            yield part

    def _filled(self, metric: Any, point: Point) -> Any:
        metric.service_name, metric.metric_name = self.names(point.series)
        metric.value = point.value
        metric.time.FromMicroseconds(point.time_us)
        metric.labels.update(self.labels_of(point.series))
        return metric

    def _json(self, point: Point) -> dict[str, object]:
        service, metric = self.names(point.series)
        moment = datetime.fromtimestamp(point.time_us / 1e6, UTC).isoformat().replace("+00:00", "Z")
        labels = {"labels": self.labels_of(point.series)} if self.labels else {}
        return {"serviceName": service, "metricName": metric, "value": point.value, "time": moment, **labels}
