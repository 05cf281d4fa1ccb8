"""Request bodies from rows, fast enough that the generator is not what is measured.

betterproto2 needs 33 us a row where protobuf's C runtime (upb), over the descriptors of the same
package, needs 2; neither encoder validates: rows are valid by construction.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from importlib.resources import files
from typing import Any, Protocol

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from ingestor.loadgen.rows import MICROSECONDS, Rows, Series
from ingestor.loadgen.terms import Terms


class Bodies(Protocol):
    """What a client needs to fill its requests."""

    def single(self, seq: int) -> bytes: ...
    def batch(self, first: int, size: int) -> bytes: ...


class ProtobufBodies:
    """LogMetricRequest and LogMetricsRequest on the wire."""

    def __init__(self, rows: Rows, terms: Terms) -> None:
        pool = _pool()
        self._rows = rows
        self._terms = terms
        self._single = _message_class(pool, "LogMetricRequest")
        self._batch = _message_class(pool, "LogMetricsRequest")
        metric = _message_class(pool, "Metric")
        self._metrics = [_prototype(metric, series) for series in rows.series]

    def single(self, seq: int) -> bytes:
        # LogMetricRequest begins with the fields of Metric, with the same numbers.
        return bytes(self._metric(seq).SerializeToString()) + self._terms.protobuf(self._single, seq)

    def batch(self, first: int, size: int) -> bytes:
        message = self._batch()
        append = message.metrics.append  # copies, so that one prototype serves many rows
        for seq in range(first, first + size):
            append(self._metric(seq))
        return bytes(message.SerializeToString()) + self._terms.protobuf(self._batch, first)

    def _metric(self, seq: int) -> Any:
        index, time_us = self._rows.place(seq)
        metric = self._metrics[index]
        metric.value = seq
        timestamp = metric.time
        timestamp.seconds, rest_us = divmod(time_us, MICROSECONDS)
        timestamp.nanos = rest_us * 1000
        return metric


class JsonBodies:
    """The same in proto3 JSON."""

    def __init__(self, rows: Rows, terms: Terms) -> None:
        self._rows = rows
        self._terms = terms
        self._heads = [_json_head(series) for series in rows.series]

    def single(self, seq: int) -> bytes:
        return f"{self._metric(seq).removesuffix('}')}{self._terms.json(seq)}}}".encode()

    def batch(self, first: int, size: int) -> bytes:
        metrics = ",".join(map(self._metric, range(first, first + size)))
        return f'{{"metrics":[{metrics}]{self._terms.json(first)}}}'.encode()

    def _metric(self, seq: int) -> str:
        index, time_us = self._rows.place(seq)
        second, rest_us = divmod(time_us, MICROSECONDS)
        return f'{self._heads[index]}"time":"{_second_text(second)}.{rest_us:06}Z","value":{seq}}}'


def _pool() -> DescriptorPool:
    # A pool of its own: the default one may hold other versions of google/api.
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((files("ingestor_api") / "descriptors.binpb").read_bytes()).file:
        pool.Add(file)
    return pool


def _message_class(pool: DescriptorPool, name: str) -> Any:
    return GetMessageClass(pool.FindMessageTypeByName(f"analytics.v1.{name}"))


def _prototype(metric: Any, series: Series) -> Any:
    return metric(
        service_name=series.service_name, metric_name=series.metric_name, labels=series.labels, time={}
    )


def _json_head(series: Series) -> str:
    fields: dict[str, Any] = {"serviceName": series.service_name, "metricName": series.metric_name}
    if series.labels:
        fields["labels"] = series.labels
    return json.dumps(fields, separators=(",", ":")).removesuffix("}") + ","


@lru_cache(4096)
def _second_text(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
