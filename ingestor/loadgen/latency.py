"""Latencies of any number of requests in constant memory, within one percent.

It keeps counts in buckets that grow by a hundredth, and the exact maximum; no single value.
"""

from __future__ import annotations

import math
from collections import Counter

_GROWTH = math.log(1.01)
_FLOOR_S = 1e-6


class Histogram:
    """Add seconds, ask for quantiles."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.max_s = 0.0
        self.count = 0

    def add(self, latency_s: float) -> None:
        self._buckets[math.ceil(math.log(max(latency_s, _FLOOR_S)) / _GROWTH)] += 1
        self.max_s = max(self.max_s, latency_s)
        self.count += 1

    def quantile_s(self, quantile: float) -> float | None:
        """The smallest bucket bound that `quantile` of the values don't exceed; None without values."""
        rank = math.ceil(quantile * self.count)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(math.exp(bucket * _GROWTH), self.max_s)
        return None
