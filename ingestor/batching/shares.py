"""How many rows of a delivery were committed for each service. Pure; it counts columns, never row by row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ingestor.model import Delivery, Outcome


def by_service(delivery: Delivery, outcome: Outcome) -> Iterator[tuple[str, int]]:
    """Each service with its rows, without those that became dead letters or had been stored before."""
    services = delivery.batch.columns.column("service_name")
    if outcome.dead or outcome.duplicates:
        services = services.filter(pa.array(_committed(delivery, outcome)))
    for counted in services.value_counts().to_pylist():
        yield counted["values"], counted["counts"]


def _committed(delivery: Delivery, outcome: Outcome) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    committed = np.ones(delivery.batch.rows, np.bool_)
    for number in outcome.duplicates:
        request = delivery.requests[number]
        committed[request.first : request.first + request.rows] = False
    committed[[dead.row for dead in outcome.dead]] = False
    return committed
