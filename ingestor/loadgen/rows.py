"""The rows of a run, each a pure function of plan, start and sequence number, so that a check of ten
million stored rows needs no copy of them.

It keeps nothing per row and reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingestor.loadgen.plan import SERVICES_MAX, LoadPlan

MICROSECONDS = 1_000_000
LATE_US_MAX = 600 * MICROSECONDS
LABEL_VALUES = 10

_MASK = 2**64 - 1
_LATE_BITS = 20


@dataclass(frozen=True, slots=True)
class Series:
    """What the rows of one time series share."""

    service_name: str
    metric_name: str
    labels: dict[str, str]


class Rows:
    """Row `seq` has the value `seq`; its series and time come from a hash of seed and seq."""

    def __init__(self, plan: LoadPlan, started_us: int) -> None:
        self.series = [_series(plan, index) for index in range(plan.series)]
        self._series_count = plan.series
        self._pace = plan.pace
        # A request is sent when its first metric is due: a batch earlier, none lies in the future.
        self._origin_us = started_us - plan.batch * MICROSECONDS // plan.pace
        self._late_below = round(plan.late_percent / 100 * 2**_LATE_BITS)
        self._salt = mixed(plan.seed)

    def place(self, seq: int) -> tuple[int, int]:
        """The series' index and the time in microseconds since 1970 of row `seq`."""
        bits = mixed(seq ^ self._salt)
        time_us = self._origin_us + seq * MICROSECONDS // self._pace
        if bits >> (64 - _LATE_BITS) < self._late_below:
            time_us -= 1 + mixed(~bits) % LATE_US_MAX
        return (bits & 0xFFFFFFFF) % self._series_count, time_us


def mixed(number: int) -> int:
    """64 well-mixed bits of `number` (the finalizer of splitmix64, one round)."""
    bits = number * 0x9E3779B97F4A7C15 & _MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    return bits ^ bits >> 31


def _series(plan: LoadPlan, index: int) -> Series:
    services = min(SERVICES_MAX, plan.series)
    return Series(
        service_name=f"loadgen-{plan.run_id}-{index % services}",
        metric_name=f"metric_{index // services}",
        labels={
            f"label_{label}": f"value_{mixed(plan.seed + index * 32 + label) % LABEL_VALUES}"
            for label in range(plan.labels)
        },
    )
