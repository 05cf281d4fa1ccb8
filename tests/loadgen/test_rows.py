"""Rows and their encodings follow from plan, start and sequence number."""

from __future__ import annotations

import json
import random
from datetime import datetime

import pytest
from ingestor_api.analytics.v1 import LogMetricRequest, LogMetricsRequest

from ingestor.loadgen import LoadPlan
from ingestor.loadgen.bodies import JsonBodies, ProtobufBodies
from ingestor.loadgen.rows import LATE_US_MAX, Rows
from ingestor.loadgen.terms import Terms
from tests.loadgen.fake_server import microseconds

TERMS = Terms(LoadPlan())
START_US = 1_790_000_000_123_456


def test_rows_follow_from_plan_and_start_alone() -> None:
    """The same seed gives the same rows whatever order they are asked in; another seed gives others."""
    rows, again = (Rows(LoadPlan(run_id="same", seed=7), START_US) for _ in range(2))
    order = random.Random(1).sample(range(1000), 1000)
    assert {seq: rows.place(seq) for seq in order} == {seq: again.place(seq) for seq in range(1000)}
    other = Rows(LoadPlan(run_id="same", seed=8), START_US)
    assert sum(rows.place(seq) == other.place(seq) for seq in range(1000)) < 100


@pytest.mark.parametrize("rate", [None, 20_000])
def test_time_moves_and_is_never_in_the_future(rate: int | None) -> None:
    """A row's time is at most the moment when it is sent, and late ones are at most 10 minutes older."""
    plan = LoadPlan(rate=rate, late_percent=25)
    rows = Rows(plan, START_US)
    ages_us = [START_US + seq * 1_000_000 // plan.pace - rows.place(seq)[1] for seq in range(20_000)]
    in_time_us = min(ages_us)
    assert in_time_us >= 0
    late = [age for age in ages_us if age > in_time_us + 1]
    assert 0.23 < len(late) / len(ages_us) < 0.27
    assert in_time_us + LATE_US_MAX * 0.99 < max(late) <= in_time_us + 1 + LATE_US_MAX


@pytest.mark.parametrize(("percent", "distinct"), [(0, 1), (100, 100)])
def test_no_or_all_rows_can_be_late(percent: int, distinct: int) -> None:
    """The share holds at its ends."""
    rows = Rows(LoadPlan(late_percent=percent, rate=1_000_000), START_US)
    assert len({rows.place(seq)[1] - seq for seq in range(100)}) == distinct


def test_series_are_distinct_and_all_used() -> None:
    """As many (service, metric) pairs as asked for, in at most 10 services named after the run."""
    rows = Rows(LoadPlan(series=33, run_id="abc"), START_US)
    names = {(series.service_name, series.metric_name) for series in rows.series}
    assert len(names) == 33
    assert {service for service, _ in names} == {f"loadgen-abc-{k}" for k in range(10)}
    assert {rows.place(seq)[0] for seq in range(2000)} == set(range(33))


@pytest.mark.parametrize("labels", [0, 3])
def test_both_encodings_hold_the_rows(labels: int) -> None:
    """What betterproto2 and json read back from the bodies is what `place` says, to the microsecond."""
    rows = Rows(LoadPlan(labels=labels, late_percent=50), START_US)
    message = LogMetricsRequest.parse(ProtobufBodies(rows, TERMS).batch(40, 20))
    text = json.loads(JsonBodies(rows, TERMS).batch(40, 20))["metrics"]
    for offset, (metric, fields) in enumerate(zip(message.metrics, text, strict=True)):
        index, time_us = rows.place(40 + offset)
        series = rows.series[index]
        assert metric.time is not None
        assert microseconds(metric.time) == microseconds(datetime.fromisoformat(fields["time"])) == time_us
        assert metric.service_name == fields["serviceName"] == series.service_name
        assert metric.metric_name == fields["metricName"] == series.metric_name
        assert metric.value == fields["value"] == 40 + offset
        assert metric.labels == fields.get("labels", {}) == series.labels
        assert len(metric.labels) == labels


def test_a_single_row_is_encoded_as_in_a_batch() -> None:
    """LogMetric gets the same fields, the value 0 included."""
    rows = Rows(LoadPlan(), START_US)
    single = LogMetricRequest.parse(ProtobufBodies(rows, TERMS).single(0))
    in_batch = LogMetricsRequest.parse(ProtobufBodies(rows, TERMS).batch(0, 1)).metrics[0]
    assert single.value == in_batch.value == 0
    assert (single.service_name, single.time) == (in_batch.service_name, in_batch.time)
    assert (
        json.loads(JsonBodies(rows, TERMS).single(0))
        == json.loads(JsonBodies(rows, TERMS).batch(0, 1))["metrics"][0]
    )
