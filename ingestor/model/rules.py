"""The rules that a metric must keep to be stored, as pure functions of the metric and the present moment.

They refuse and name the field; they never mend, shorten or guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from ingestor.errors import FieldViolation

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_CACHED_NAMES_MAX = 65_536


class Limits(BaseModel):
    """The bounds on one metric and one request. Lengths are in bytes of UTF-8."""

    model_config = ConfigDict(frozen=True)

    time_past_max: timedelta = Field(default=timedelta(days=365))
    time_future_max: timedelta = Field(default=timedelta(hours=1))
    rows_max: int = 50_000
    name_bytes_max: int = 255
    labels_max: int = 32
    label_name_bytes_max: int = 128
    label_value_bytes_max: int = 1_024


class MetricFields(Protocol):
    """What LogMetricRequest and Metric have in common."""

    @property
    def service_name(self) -> str: ...
    @property
    def metric_name(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def time(self) -> datetime | None: ...
    @property
    def labels(self) -> dict[str, str]: ...


class PlainMetric(NamedTuple):
    """A metric that is nothing but these fields."""

    service_name: str
    metric_name: str
    value: float | None
    time: datetime | None
    labels: dict[str, str]


class Rules:
    """Checks metrics against `limits`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def violations(self, metric: MetricFields, now: datetime) -> list[FieldViolation]:
        """Every rule that the metric breaks, in the order of the fields; empty when it may be stored."""
        return list(self._violations(metric, now))

    def _violations(self, metric: MetricFields, now: datetime) -> Iterator[FieldViolation]:
        name_bytes_max = self.limits.name_bytes_max
        if problem := name_problem(metric.service_name, name_bytes_max):
            yield FieldViolation("service_name", problem)
        if problem := name_problem(metric.metric_name, name_bytes_max):
            yield FieldViolation("metric_name", problem)
        if metric.value is None:
            yield FieldViolation("value", "is required")
        elif not math.isfinite(metric.value):
            yield FieldViolation("value", "must be a finite number")
        if metric.time is not None and (problem := self._time_problem(metric.time, now)):
            yield FieldViolation("time", problem)
        if metric.labels:
            yield from label_problems(metric.labels, self.limits)

    def _time_problem(self, time: datetime, now: datetime) -> str | None:
        if time < now - self.limits.time_past_max:
            return f"is more than {_days(self.limits.time_past_max)} ago (TIME_PAST_MAX)"
        if time > now + self.limits.time_future_max:
            return f"is more than {_days(self.limits.time_future_max)} ahead (TIME_FUTURE_MAX)"
        return None


def label_problems(labels: Mapping[str, str], limits: Limits) -> Iterator[FieldViolation]:
    """Every rule that a set of labels breaks."""
    if len(labels) > limits.labels_max:
        yield FieldViolation("labels", f"has {len(labels)} labels, {limits.labels_max} at most")
        return
    for name, value in sorted(labels.items()):  # a map has no order, and the answer should have one
        if problem := name_problem(name, limits.label_name_bytes_max):
            yield FieldViolation("labels", f"a label's name {problem}")
        elif problem := label_value_problem(value, limits.label_value_bytes_max):
            yield FieldViolation(f'labels["{name}"]', problem)


def name_problem(name: str, bytes_max: int) -> str | None:
    """What is wrong with a service, metric or label name; None if nothing is."""
    if len(name) > bytes_max:
        return f"is longer than {bytes_max} bytes"
    return _short_name_problem(name, bytes_max)


# Only what is short gets here: a cache of what callers send must not be what fills the memory.
@lru_cache(maxsize=_CACHED_NAMES_MAX)
def _short_name_problem(name: str, bytes_max: int) -> str | None:
    if not name:
        return "must not be empty"
    if len(name.encode()) > bytes_max:
        return f"is longer than {bytes_max} bytes"
    if _CONTROL.search(name):
        return "has a control character"
    return None


def label_value_problem(value: str, bytes_max: int) -> str | None:
    """What is wrong with a label's value; None if nothing is. It may be empty, and hold line breaks."""
    if len(value) > bytes_max or len(value.encode()) > bytes_max:
        return f"is longer than {bytes_max} bytes"
    if "\0" in value:
        return "has a NUL character, which PostgreSQL can't store"
    return None


def _days(span: timedelta) -> str:
    if span % timedelta(days=1):
        return f"{span.total_seconds() / 3600:g} h"
    return f"{span.days} d"
