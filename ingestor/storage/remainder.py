"""A delivery without the rows of requests that are known already: what remains to be stored, and what became of the
rest.

Pure; which requests those are, others say.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingestor.model import DeadRow, Delivery, MetricBatch, RequestKey
from ingestor.storage.request_ids import Verdicts

_CONFLICT = "its request_id was used before, for a request with other rows"


@dataclass(frozen=True, slots=True)
class Rest:
    """`batch` and `arranged` are to be stored; `rows` are their numbers in the delivery's batch (None: they are
    all of it); `dead` were left out and have to be kept elsewhere."""

    batch: MetricBatch
    arranged: MetricBatch
    rows: npt.NDArray[np.int64] | None = None
    dead: list[DeadRow] = field(default_factory=list)

    def renumbered(self, dead: Iterable[DeadRow]) -> Iterator[DeadRow]:
        """The same dead rows of `batch`, with their numbers in the delivery's."""
        for each in dead:
            yield each if self.rows is None else each._replace(row=int(self.rows[each.row]))


def leave_out(delivery: Delivery, verdicts: Verdicts, arrange: Callable[[MetricBatch], MetricBatch]) -> Rest:
    """The delivery without the rows of duplicates, which are stored, and of conflicts, which are dead. May take
    milliseconds: call it in a thread."""
    kept = np.ones(delivery.batch.rows, np.bool_)
    dead: list[DeadRow] = []
    for index in verdicts.duplicates:
        first, rows, _ = delivery.requests[index]
        kept[first : first + rows] = False
    for index in verdicts.conflicts:
        first, rows, _ = delivery.requests[index]
        kept[first : first + rows] = False
        dead.extend(DeadRow(row, None, _CONFLICT) for row in range(first, first + rows))
    batch = delivery.batch.filtered(kept)
    arranged = arrange(batch) if batch.rows else batch
    return Rest(batch, arranged, np.flatnonzero(kept), dead)


def dead_of_requests(
    delivery: Delivery, dead: list[DeadRow], verdicts: Verdicts
) -> dict[RequestKey, list[DeadRow]]:
    """The dead rows (in order) of each request that was recorded, counted from its first."""
    others = {*verdicts.duplicates, *verdicts.conflicts}
    numbers = [each.row for each in dead]
    found: dict[RequestKey, list[DeadRow]] = {}
    for index, (first, rows, request) in enumerate(delivery.requests):
        start, end = bisect_left(numbers, first), bisect_left(numbers, first + rows)
        if start < end and index not in others:
            found[request.key] = [each._replace(row=each.row - first) for each in dead[start:end]]
    return found
