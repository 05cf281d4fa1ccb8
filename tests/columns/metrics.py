"""Requests for the tests of the columnar path: any mixture of good metrics and bad ones, as bytes."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from ingestor.transport.rpc import Descriptors


@cache
def descriptor(name: str = "LogMetricsRequest") -> Descriptor:
    """That of a request."""
    pool = Descriptors.of_package("ingestor_api").pool
    return pool.FindMessageTypeByName(f"analytics.v1.{name}")


def request(*metrics: dict[str, Any]) -> bytes:
    """The bytes of a request of these metrics, by field names; `time` is (seconds, nanos)."""
    message: Message = GetMessageClass(descriptor())()
    for values in metrics:
        metric = message.metrics.add()  # type: ignore[attr-defined]
        for name, value in values.items():
            if name == "time":
                metric.time.seconds, metric.time.nanos = value
            elif name == "labels":
                metric.labels.update(value)
            else:
                setattr(metric, name, value)
    return message.SerializeToString()


def series_request(*series: dict[str, Any]) -> bytes:
    """The bytes of a WriteSeriesRequest of these series, by field names."""
    message: Any = GetMessageClass(descriptor("WriteSeriesRequest"))()
    for values in series:
        made = message.series.add()
        for name, value in values.items():
            if name == "labels":
                made.labels.update(value)
            elif name in ("time_unix_nano", "value"):
                getattr(made, name).extend(value)
            else:
                setattr(made, name, value)
    encoded: bytes = message.SerializeToString()
    return encoded


_now = int(time.time())
_names = st.one_of(
    st.sampled_from(["checkout", "payments", "ü", "a" * 255]),
    st.sampled_from(["", "x" * 256, "ü" * 128, "tab\t", "nul\0", "\x9f"]),
    st.text(max_size=3),
)
_values = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 5e-324]))
_times = st.one_of(
    st.tuples(st.integers(_now - 10**6, _now), st.integers(0, 999_999_999)),
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(_now), st.sampled_from([-1, 10**9, 999_999_999])),
)
_labels = st.one_of(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["", "1", "2", "\n"]), max_size=5),
    st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=3),
    st.sampled_from(
        [{f"l{n}": "" for n in range(33)}, {"n" * 129: ""}, {"a": "x" * 1025}, {"a": "\0"}, {"": "x"}]
    ),
)
metric = st.fixed_dictionaries(
    {},
    optional={
        "service_name": _names,
        "metric_name": _names,
        "value": _values,
        "time": _times,
        "labels": _labels,
    },
)
requests = st.lists(metric, max_size=12).map(lambda metrics: request(*metrics))

_nanos = st.one_of(
    st.integers((_now - 10**6) * 10**9, _now * 10**9),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1]),
)
_points = st.lists(st.tuples(_nanos, _values), max_size=4)
_lists = st.one_of(
    _points.map(lambda points: {"time_unix_nano": [n for n, _ in points], "value": [v for _, v in points]}),
    st.fixed_dictionaries(
        {"time_unix_nano": st.lists(_nanos, max_size=2), "value": st.lists(_values, max_size=2)}
    ),
)
_series = st.builds(
    lambda names, lists: {**names, **lists},
    st.fixed_dictionaries({}, optional={"service_name": _names, "metric_name": _names, "labels": _labels}),
    _lists,
)
series_requests = st.lists(_series, max_size=4).map(lambda series: series_request(*series))
