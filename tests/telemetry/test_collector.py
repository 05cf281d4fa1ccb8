"""The collector of calls counts as prometheus_client's own histogram does."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram

from ingestor.telemetry import Telemetry
from ingestor.telemetry.calls import BOUNDS_S, CODES, Calls

SECONDS = [0.0, 0.0004, 0.0005, 0.00051, 0.3, 29.9, 30.0, 31.0, 1e9]


def test_it_shows_what_the_library_would() -> None:
    """The same buckets, bounds belonging to the bucket below them, the same sum and count."""
    registry = CollectorRegistry()
    Calls(registry)
    ours, theirs = Calls(CollectorRegistry()), Histogram("theirs", "", buckets=BOUNDS_S, registry=registry)
    for seconds in SECONDS:
        ours.count("a", "b").ended(0, seconds)
        theirs.observe(seconds)
    [shown] = [each for each in ours.collect() if each.type == "histogram"]
    [expected] = theirs.collect()
    assert [
        (each.name.removeprefix("ingestor_rpc_seconds"), each.labels.get("le"), each.value)
        for each in shown.samples
    ] == [
        (each.name.removeprefix("theirs"), each.labels.get("le"), each.value)
        for each in sorted(
            expected.samples,
            key=lambda each: ["theirs_bucket", "theirs_count", "theirs_sum"].index(each.name),
        )
        if not each.name.endswith("_created")
    ]


def test_codes_are_named_as_grpc_numbers_them() -> None:
    """All of them, so that no code that a method may answer with is beyond the table."""
    from grpclib.const import Status

    assert [Status[name].value for name in CODES] == list(range(len(Status)))


def test_a_metric_is_made_once_in_each_registry() -> None:
    """Two processes' worth of telemetry share nothing, and a name can't be taken twice."""
    one, other = Telemetry(), Telemetry()
    one.received.inc()
    assert (one.received, other.registry.get_sample_value("ingestor_metrics_received_total")) == (
        one.received,
        0,
    )
    with pytest.raises(ValueError, match="ingestor_rpc"):
        Calls(one.registry)
