"""Counts what is committed by service, for as many services as can be told apart: callers name them, and could name
millions.

The first services get a count of their own and keep it; it knows no series and no rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from ingestor.telemetry.declared import Family

SERVICES_MAX = 100
OTHERS = ""  # which is no service's name

COMMITTED = Family(
    "ingestor_service_metrics_committed_total",
    "counter",
    "Metrics committed to the database, by service: the first 100 services since the start. What the others send is"
    " counted under an empty name.",
    "Moves with ingestor_metrics_committed_total, but for what a start or a database that was replaced turns out to"
    " have stored already.",
    "metrics",
    ("service",),
)


class ServiceCounts:
    """The counts, as a collector of this registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts = {OTHERS: 0}
        registry.register(self)

    def add(self, committed: Iterable[tuple[str, int]]) -> None:
        """So many metrics of each of these services were committed."""
        counts = self._counts
        for service, metrics in committed:
            known = service if service in counts or len(counts) <= SERVICES_MAX else OTHERS
            counts[known] = counts.get(known, 0) + metrics

    def describe(self) -> Iterable[Metric]:
        """The name, for the registry to see that it is taken once."""
        return [_family()]

    def collect(self) -> Iterator[Metric]:
        """Each service's count."""
        family = _family()
        for service, metrics in self._counts.items():
            family.add_metric([service], metrics)
        yield family


def _family() -> CounterMetricFamily:
    return CounterMetricFamily(COMMITTED.name, COMMITTED.help, labels=COMMITTED.labels)
