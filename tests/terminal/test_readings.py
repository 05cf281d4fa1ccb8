"""What two readings of /metrics say, and how numbers are told."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from ingestor.terminal import format as told
from ingestor.terminal.readings import Between, Reading


def counted(**metrics: float) -> Reading:
    registry = CollectorRegistry()
    counter = Counter("c", "Help.", ["of"], registry=registry)
    for of, count in metrics.items():
        counter.labels(of).inc(count)
    return Reading.of(generate_latest(registry).decode(), sum(metrics.values()))


def test_a_rate_is_a_second_s_and_of_what_is_meant() -> None:
    """The sum over labels, or of those that are asked for; nothing where it went back or is not there."""
    between = Between(Reading(0.0, counted(a=2, b=10).samples), Reading(4.0, counted(a=10, b=10).samples))
    assert between.per_second("c_total") == 2
    assert between.per_second("c_total", lambda labels: labels["of"] == "b") == 0
    assert Between(between.after, between.before).per_second("c_total") is None
    assert between.per_second("d_total") is None


@pytest.mark.parametrize(
    ("q", "observed", "expected"),
    [
        (0.5, (0.15,) * 10, 0.15),
        (0.5, (0.05, 0.15), 0.1),
        (0.99, (9.0,), 0.2),
        (1.0, (0.05,), 0.1),
        (0.5, (), None),
    ],
)
def test_a_quantile_lies_in_its_bucket(q: float, observed: tuple[float, ...], expected: float | None) -> None:
    """By a straight line; above the last bound, that bound is said."""
    registry = CollectorRegistry()
    histogram = Histogram("h", "Help.", registry=registry, buckets=(0.1, 0.2))
    histogram.observe(0.15)
    before = Reading.of(generate_latest(registry).decode(), 0.0)
    for each in observed:
        histogram.observe(each)
    found = Between(before, Reading.of(generate_latest(registry).decode(), 1.0)).quantile("h", q)
    assert found == (None if expected is None else pytest.approx(expected))


def test_numbers_have_units() -> None:
    """As somebody would say them."""
    assert [told.count(each) for each in (None, 0, 3.25, 1234.5, 1.5e6)] == [
        "-",
        "0",
        "3.25",
        "1,234",
        "1.50 M",
    ]
    assert [told.seconds(each) for each in (0, 0.00002, 0.0123, 5, 300, 9000, 2e5)] == [
        *("0 s", "20 us", "12.3 ms", "5 s", "5 min", "2.5 h", "2.31 d"),
    ]
    assert [told.size(each) for each in (0, 1536, 3 << 30)] == ["0 B", "1.5 KiB", "3 GiB"]
