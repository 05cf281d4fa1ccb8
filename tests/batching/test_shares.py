"""Whose rows of a delivery were committed."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from ingestor.batching.shares import by_service
from ingestor.model import DeadRow, Delivery, MetricBatch, Outcome, Placed, Request
from ingestor.model.batch import Row
from ingestor.telemetry.services import SERVICES_MAX, ServiceCounts


def delivery() -> Delivery:
    """Rows of a, b, a, b, a, in two requests of two and three."""
    rows = [Row(number, "ab"[number % 2], "m", 1.0) for number in range(5)]
    batch = MetricBatch.of_rows(rows, {})
    requests = [Placed(0, 2, Request("", "one", b"", 2)), Placed(2, 3, Request("", "two", b"", 3))]
    return Delivery(batch, batch, 0, 1, requests)


def test_every_row_counts_for_its_service() -> None:
    """When all were committed."""
    assert dict(by_service(delivery(), Outcome())) == {"a": 3, "b": 2}


def test_what_was_not_committed_does_not_count() -> None:
    """Dead letters, and requests that had been stored before."""
    assert dict(by_service(delivery(), Outcome(dead=[DeadRow(4, None, "bad")]))) == {"a": 2, "b": 2}
    assert dict(by_service(delivery(), Outcome(duplicates=[1]))) == {"a": 1, "b": 1}
    assert dict(by_service(delivery(), Outcome(duplicates=[0]))) == {"a": 2, "b": 1}
    assert dict(by_service(delivery(), Outcome(dead=[DeadRow(0, None, "bad")], duplicates=[1]))) == {"b": 1}


def test_callers_can_t_name_more_than_is_told_apart() -> None:
    """Those that come later are counted together; those that are known go on being counted."""
    registry = CollectorRegistry()
    counts = ServiceCounts(registry)
    for turn in range(2):
        counts.add((f"s{number}", 1) for number in range(SERVICES_MAX + 50 * turn))
    samples = next(iter(counts.collect())).samples
    told = {sample.labels["service"]: sample.value for sample in samples}
    assert len(told) == SERVICES_MAX + 1
    assert told[""] == 50
    assert told["s99"] == 2
