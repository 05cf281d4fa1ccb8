"""The rules that a metric must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model import Limits, Rules
from ingestor.model.rules import _short_name_problem
from ingestor.timestamps import microseconds

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RULES = Rules(Limits())


@dataclass(frozen=True)
class Metric:
    service_name: str = "checkout"
    metric_name: str = "latency_ms"
    value: float | None = 1.5
    time: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)


GOOD = Metric()


def broken(metric: Metric) -> list[str]:
    return [violation.field for violation in RULES.violations(metric, NOW)]


@pytest.mark.parametrize(
    "metric",
    [
        GOOD,
        replace(GOOD, value=0.0),
        replace(GOOD, value=-1e308),
        replace(GOOD, service_name="ü" * 127),
        replace(GOOD, metric_name="a b/c:d"),
        replace(GOOD, time=NOW - timedelta(days=365)),
        replace(GOOD, time=NOW + timedelta(hours=1)),
        replace(GOOD, labels={"region": "", "note": "two\nlines"}),
        replace(GOOD, labels={f"l{i}": "x" * 1024 for i in range(32)}),
    ],
)
def test_a_good_metric_breaks_no_rule(metric: Metric) -> None:
    """Each bound is inclusive, and what is unusual but storable is taken."""
    assert broken(metric) == []


@pytest.mark.parametrize(
    ("metric", "path"),
    [
        (replace(GOOD, service_name=""), "service_name"),
        (replace(GOOD, service_name="x" * 256), "service_name"),
        (replace(GOOD, service_name="ü" * 128), "service_name"),
        (replace(GOOD, service_name="a\0b"), "service_name"),
        (replace(GOOD, metric_name=""), "metric_name"),
        (replace(GOOD, metric_name="a\tb"), "metric_name"),
        (replace(GOOD, metric_name="a\x9fb"), "metric_name"),
        (replace(GOOD, value=None), "value"),
        (replace(GOOD, value=math.nan), "value"),
        (replace(GOOD, value=-math.inf), "value"),
        (replace(GOOD, time=NOW - timedelta(days=365, microseconds=1)), "time"),
        (replace(GOOD, time=NOW + timedelta(hours=1, microseconds=1)), "time"),
        (replace(GOOD, time=datetime.max.replace(tzinfo=UTC)), "time"),
        (replace(GOOD, time=datetime.min.replace(tzinfo=UTC)), "time"),
        (replace(GOOD, labels={"": "x"}), "labels"),
        (replace(GOOD, labels={"n" * 129: "x"}), "labels"),
        (replace(GOOD, labels={"a": "x" * 1025}), 'labels["a"]'),
        (replace(GOOD, labels={"a": "\0"}), 'labels["a"]'),
        (replace(GOOD, labels={f"l{i}": "" for i in range(33)}), "labels"),
    ],
)
def test_a_broken_rule_names_its_field(metric: Metric, path: str) -> None:
    """One wrong field is one violation, under that field's path."""
    assert broken(metric) == [path]


def test_every_broken_rule_is_told() -> None:
    """A caller learns of all mistakes at once, in the order of the fields."""
    metric = Metric(service_name="", metric_name="", value=None, time=datetime.min.replace(tzinfo=UTC))
    assert broken(metric) == ["service_name", "metric_name", "value", "time"]


def test_what_is_too_long_is_kept_in_no_cache() -> None:
    """Refused requests must not be what fills the memory."""
    before = _short_name_problem.cache_info().currsize
    for number in range(10):
        assert broken(replace(GOOD, service_name=f"{number}" + "x" * 10_000)) == ["service_name"]
    assert _short_name_problem.cache_info().currsize <= before + 1


@given(
    st.datetimes(
        min_value=datetime(1, 1, 2),
        max_value=datetime(9999, 12, 30),
        timezones=st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
)
def test_microseconds_are_exact(moment: datetime) -> None:
    """No moment loses a microsecond on its way into the column, whatever its zone."""
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds(moment)) == moment
