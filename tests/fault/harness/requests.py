"""Requests of every kind that the API has, over both protocols, and how their bytes are written.

They are written by protobuf and json alone: the server's own decoders are what is tested.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from itertools import groupby
from typing import Any, Literal

from google.protobuf.message_factory import GetMessageClass

from ingestor.model.delivery import Ack
from ingestor.transport.rpc import Descriptors
from tests.fault.harness import rows
from tests.fault.harness.rows import SERIES_ROWS, Times

_POOL = Descriptors.of_package("ingestor_api").pool
Protocol = Literal["grpc", "http"]


class Method(Enum):
    """An rpc: its name and its route."""

    LOG_METRIC = ("LogMetric", "/v1/metrics")
    LOG_METRICS = ("LogMetrics", "/v1/metrics:batch")
    WRITE_SERIES = ("WriteSeries", "/v1/series:write")

    @property
    def path(self) -> str:
        """Its gRPC path."""
        return f"/analytics.v1.AnalyticsService/{self.value[0]}"

    @property
    def route(self) -> str:
        """Its HTTP path."""
        return self.value[1]

    def message(self, kind: Literal["Request", "Response"]) -> Any:
        """The class of its request or answer."""
        return GetMessageClass(_POOL.FindMessageTypeByName(f"analytics.v1.{self.value[0]}{kind}"))


@dataclass(slots=True)
class Request:
    """Rows [first, first + size) in one request. `spoiled` are indexes of rows that break a rule of the API, and
    `poison` those that the database will refuse, with the service name that it refuses them for."""

    method: Method
    protocol: Protocol
    first: int
    size: int
    ack: Ack
    request_id: str = ""
    timed: bool = True
    spoiled: Sequence[int] = ()
    poison: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        named = f" request_id {self.request_id}" if self.request_id else ""
        span = f"rows {self.first}..{self.first + self.size - 1}"
        return f"{self.protocol} {self.method.value[0]} {self.ack.name} {span}{named}"


def encoded(request: Request, times: Times) -> bytes:
    """Its body for its protocol."""
    return _json(request, times) if request.protocol == "http" else _protobuf(request, times)


def _ack(request: Request) -> int:
    """JOURNALED is said only now and then: unsaid it means the same."""
    return 0 if request.ack is Ack.JOURNALED and request.first % 2 else int(request.ack)


def _protobuf(request: Request, times: Times) -> bytes:
    message = request.method.message("Request")(ack=_ack(request), request_id=request.request_id)
    if request.method is Method.LOG_METRIC:
        _fill(message, request, 0, times)
    elif request.method is Method.LOG_METRICS:
        for index in range(request.size):
            _fill(message.metrics.add(), request, index, times)
    else:
        for each in _series(request, times):
            message.series.add(**each)
    encoded: bytes = message.SerializeToString()
    return encoded


def _fill(metric: Any, request: Request, index: int, times: Times) -> None:
    row = request.first + index
    metric.service_name = request.poison.get(index) or rows.service_name(row)
    metric.metric_name = "" if index in request.spoiled else rows.metric_name(row)
    metric.value = float(row)
    metric.labels.update(rows.labels(row))
    if request.timed:
        metric.time.FromMicroseconds(times.of(row))


def _json(request: Request, times: Times) -> bytes:
    document: dict[str, Any] = {}
    if request.method is Method.LOG_METRIC:
        document = _json_metric(request, 0, times)
    elif request.method is Method.LOG_METRICS:
        document["metrics"] = [_json_metric(request, index, times) for index in range(request.size)]
    else:
        document["series"] = [
            {_CAMEL.get(name, name): _in_json(value) for name, value in each.items()}
            for each in _series(request, times)
        ]
    if ack := _ack(request):
        document["ack"] = f"ACK_LEVEL_{Ack(ack).name}"
    if request.request_id:
        document["requestId"] = request.request_id
    return json.dumps(document).encode()


_CAMEL = {"service_name": "serviceName", "metric_name": "metricName", "time_unix_nano": "timeUnixNano"}


def _in_json(value: Any) -> Any:
    """Protobuf's JSON has large integers and NaN as text."""
    if not isinstance(value, list):
        return value
    return [str(each) if isinstance(each, int) or math.isnan(each) else each for each in value]


def _json_metric(request: Request, index: int, times: Times) -> dict[str, Any]:
    row = request.first + index
    metric: dict[str, Any] = {
        "serviceName": request.poison.get(index) or rows.service_name(row),
        "metricName": "" if index in request.spoiled else rows.metric_name(row),
        "value": float(row),
    }
    if labels := rows.labels(row):
        metric["labels"] = labels
    if request.timed:
        moment = datetime.fromtimestamp(times.of(row) // 1_000 / 1_000, UTC)
        metric["time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return metric


def _series(request: Request, times: Times) -> Iterator[dict[str, Any]]:
    """What the message Series says of these rows, a series for each stretch of rows that are alike."""

    def of(index: int) -> tuple[int, str]:
        return (request.first + index) // SERIES_ROWS, request.poison.get(index, "")

    for (_, poison), group in groupby(range(request.size), key=of):
        indexes = list(group)
        numbers = [request.first + index for index in indexes]
        yield {
            "service_name": poison or rows.service_name(numbers[0]),
            "metric_name": rows.metric_name(numbers[0]),
            "labels": rows.labels(numbers[0]),
            "time_unix_nano": [times.of(row) * 1_000 for row in numbers],
            "value": [
                math.nan if index in request.spoiled else float(row)
                for index, row in zip(indexes, numbers, strict=True)
            ],
        }


@dataclass(frozen=True, slots=True)
class Mix:
    """Which requests a load is made of; `sizes` are rows of a batch, `poisons` service names that the database
    refuses."""

    acks: Sequence[Ack] = (Ack.JOURNALED, Ack.JOURNALED, Ack.COMMITTED)
    sizes: Sequence[int] = (1, 5, 50, 400)
    with_id: float = 0.6
    spoiled: float = 0.05
    poisons: Sequence[str] = ()
    poisoned: float = 0.1

    def request(self, chance: random.Random, protocol: Protocol, first: int, request_id: str) -> Request:
        """One of them, which begins with row `first`."""
        method = chance.choice(list(Method))
        size = 1 if method is Method.LOG_METRIC else chance.choice(self.sizes)
        request = Request(method, protocol, first, size, chance.choice(self.acks))
        if chance.random() < self.with_id:
            request.request_id = request_id
        # A point of a series always has a time.
        request.timed = method is Method.WRITE_SERIES or chance.random() < 0.7
        if size > 1 and chance.random() < self.spoiled:
            request.spoiled = sorted(chance.sample(range(size), min(size - 1, 3)))
        if self.poisons and chance.random() < self.poisoned:
            indexes = chance.sample(range(size), min(size, chance.choice((1, 1, 2, 5))))
            request.poison = {
                index: chance.choice(self.poisons) for index in indexes if index not in request.spoiled
            }
        return request
