"""What two readings of /metrics say: rates, and quantiles of histograms. Pure.

A counter that went back (the server began anew) gives nothing, rather than something wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]
Filter = Callable[[Labels], bool]


def _any(_: Labels) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Reading:
    """The samples of one moment, by name; `at_s` on a clock that never goes back."""

    at_s: float
    samples: Mapping[str, Sequence[tuple[Labels, float]]]

    @classmethod
    def of(cls, text: str, at_s: float) -> Reading:
        """Of Prometheus' text format. Raises ValueError for what is none."""
        samples: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        return cls(at_s, samples)

    def total(self, name: str, of: Filter = _any) -> float | None:
        """The sum of a metric's samples, of those that `of` takes; None without any."""
        values = [value for labels, value in self.samples.get(name, ()) if of(labels)]
        return sum(values) if values else None

    def buckets(self, name: str, of: Filter = _any) -> dict[float, float]:
        """How many observations of a histogram lie at or below each bound."""
        found: dict[float, float] = {}
        for labels, value in self.samples.get(f"{name}_bucket", ()):
            if of(labels):
                bound = float(labels["le"])
                found[bound] = found.get(bound, 0.0) + value
        return found


@dataclass(frozen=True, slots=True)
class Between:
    """The time between two readings."""

    before: Reading
    after: Reading

    def per_second(self, name: str, of: Filter = _any) -> float | None:
        """A counter's growth a second; None where that can't be told."""
        was, now = self.before.total(name, of), self.after.total(name, of)
        seconds = self.after.at_s - self.before.at_s
        if was is None or now is None or now < was or seconds <= 0:
            return None
        return (now - was) / seconds

    def quantile(self, name: str, q: float, of: Filter = _any) -> float | None:
        """The quantile of what a histogram observed meanwhile, within its bucket by a straight line; None without
        any."""
        was, now = self.before.buckets(name, of), self.after.buckets(name, of)
        counts = sorted((bound, count - was.get(bound, 0.0)) for bound, count in now.items())
        if not counts or any(count < 0 for _, count in counts) or not counts[-1][1]:
            return None
        wanted = q * counts[-1][1]
        for (low, below), (high, up_to) in pairwise([(0.0, 0.0), *counts]):
            if up_to >= wanted:
                inside = (wanted - below) / (up_to - below) if up_to > below else 1.0
                return low if math.isinf(high) else low + (high - low) * inside
        return None
