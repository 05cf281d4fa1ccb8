"""When to flush and how long to wait after a failure, as pure functions of numbers.

Nothing here knows a clock, a queue or a database.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """A flush is due when `batch_size` rows wait, or the oldest of them is `flush_interval_s` old; it takes what
    waits, up to about `rows_max`: a batch that was held up grows to `growth` times the size that starts a flush,
    since each costs a few round trips."""

    batch_size: int
    flush_interval_s: float
    growth: int = 3

    @property
    def rows_max(self) -> int:
        """How many rows are enough for one batch, while the database is behind."""
        return self.growth * self.batch_size

    def due_in_s(self, rows: int, age_s: float, *, pressed: bool) -> float | None:
        """Seconds until a flush is due; 0 for now, None when nothing waits.

        `pressed` says that somebody waits for room: then there is no point in waiting for a fuller batch.
        """
        if rows == 0:
            return None
        if rows >= self.batch_size or pressed:
            return 0.0
        return max(0.0, self.flush_interval_s - age_s)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, from `first_s` to `most_s`, with full jitter in the upper half so that gateways which
    failed together don't come back together."""

    first_s: float = 0.1
    most_s: float = 5.0

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after that many failures in a row (1 or more); `chance` lies in [0, 1)."""
        # The exponent is bounded so that a long outage can't overflow a float.
        ceiling = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return float(ceiling * (0.5 + 0.5 * chance))
