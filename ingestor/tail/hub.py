"""Hands committed rows to those who watch: each gets those that it asked for, as far as it has room.

The batch worker calls `committed` after each commit; it returns at once, whoever reads or doesn't. Only what this
process commits is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ingestor.errors import Overloaded
from ingestor.model import Delivery, MetricBatch, Outcome
from ingestor.tail.watch import TailLimits, Watch
from ingestor.telemetry import Telemetry

_RETRY_AFTER_S = 5.0


class Tail:
    """All watches of a process."""

    def __init__(self, telemetry: Telemetry, limits: TailLimits = TailLimits()) -> None:  # noqa: B008 - frozen
        self._telemetry = telemetry
        self._limits = limits
        self._watches: list[Watch] = []
        telemetry.tail_readers.set_function(lambda: len(self._watches))

    def committed(self, delivery: Delivery, outcome: Outcome) -> None:
        """The rows of this delivery are, but for those that `outcome` tells of."""
        if not self._watches:
            return
        batch = _stored(delivery, outcome)
        for watch in self._watches:
            self._telemetry.tail_dropped.inc(watch.offer(batch))

    @contextmanager
    def watch(self, service_name: str, metric_name: str, readable: tuple[str, ...]) -> Iterator[Watch]:
        """Rows of this service and this metric (empty: of all) whose service begins with one of `readable`, from
        now on. Raises Overloaded."""
        readers = len(self._watches)
        if readers >= self._limits.readers:
            msg = f"{readers} readers watch already, which is the most at once: try again later"
            raise Overloaded(msg, _RETRY_AFTER_S)
        watch = Watch(service_name, metric_name, readable, self._limits, lambda: len(self._watches))
        self._watches.append(watch)
        try:
            yield watch
        finally:
            self._watches.remove(watch)


def _stored(delivery: Delivery, outcome: Outcome) -> MetricBatch:
    """The delivery's rows that were stored by it, in the order in which they came."""
    if not outcome.dead and not outcome.duplicates:
        return delivery.batch
    kept = np.ones(delivery.batch.rows, np.bool_)
    kept[[each.row for each in outcome.dead]] = False
    for index in outcome.duplicates:
        first, rows, _ = delivery.requests[index]
        kept[first : first + rows] = False
    return delivery.batch.filtered(kept)
