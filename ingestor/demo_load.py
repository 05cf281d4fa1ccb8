"""The gentle load of `ingestor demo --stay`: a shop's services, whose metrics rise and fall as such metrics do.

It is a client like any other; it goes on until it is cancelled, and what the server refuses it lets go.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError
from ingestor_api.analytics.v1 import AnalyticsServiceStub, LogMetricsRequest, Metric

_EVERY_S = 0.5
_ANSWER_S = 5.0
_REGIONS = ("eu", "us")


class Wave(NamedTuple):
    """A metric that swings around `middle` by `swing` within `period_s` seconds, and by a little chance."""

    service_name: str
    metric_name: str
    middle: float
    swing: float
    period_s: float
    chance: float

    def at(self, moment_s: float) -> float:
        """Its value at this moment; never below 0."""
        wave = math.sin(2 * math.pi * moment_s / self.period_s)
        return max(0.0, self.middle + self.swing * wave + random.gauss(0.0, self.chance))


WAVES = (
    Wave("basket", "latency_ms", 42.0, 14.0, 240.0, 3.0),
    Wave("basket", "orders", 18.0, 8.0, 420.0, 2.0),
    Wave("basket", "total_eur", 61.0, 6.0, 600.0, 4.0),
    Wave("search", "latency_ms", 12.0, 4.0, 180.0, 1.0),
    Wave("search", "cache_hit_percent", 91.0, 4.0, 300.0, 0.8),
    Wave("payments", "latency_ms", 120.0, 35.0, 360.0, 9.0),
    Wave("payments", "declined", 1.2, 0.9, 200.0, 0.4),
    Wave("warehouse", "queue_depth", 140.0, 90.0, 500.0, 6.0),
    Wave("warehouse", "temperature_celsius", 4.5, 0.6, 900.0, 0.08),
    Wave("frontend", "requests", 230.0, 80.0, 330.0, 12.0),
)
# How many points of a service's metrics come at once, so that services differ in their rates.
_POINTS = {"frontend": 12, "basket": 6, "search": 5, "payments": 3, "warehouse": 1}


async def send_for_ever(host: str, grpc_port: int) -> None:
    """Sends some sixty metrics twice a second."""
    channel = Channel(host, grpc_port)
    try:
        stub = AnalyticsServiceStub(channel)
        while True:
            # What is refused the page shows; the next ones may be taken.
            with suppress(GRPCError, StreamTerminatedError, OSError, TimeoutError):
                await stub.log_metrics(LogMetricsRequest(list(_metrics())), timeout=_ANSWER_S)
            await asyncio.sleep(_EVERY_S)
    finally:
        channel.close()


def _metrics() -> Iterator[Metric]:
    now = datetime.now(UTC)
    for wave in WAVES:
        for point in range(_POINTS[wave.service_name]):
            labels = {"region": _REGIONS[point % len(_REGIONS)]}
            yield Metric(wave.service_name, wave.metric_name, wave.at(now.timestamp()), now, labels)
