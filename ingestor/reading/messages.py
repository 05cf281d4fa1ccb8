"""Rows of a batch as the API's messages, a few at a time: what a tail shows.

It makes an object for each row, which only what is shown to somebody may cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ingestor_api.analytics.v1 import Metric, TailMetricsResponse

from ingestor.model import MetricBatch
from ingestor.model.labels import NO_LABELS

# Of one message: clients take 4 MiB, and each is made in one turn of the event loop.
_ROWS_MAX, _BYTES_MAX = 500, 128 * 1024
_ROW_BYTES = 32


def tail_messages(batch: MetricBatch, dropped: int) -> Iterator[TailMetricsResponse]:
    """The batch's rows in their order, in messages of bounded size; the first tells how many were left out before
    them."""
    labels = {id_: json.loads(document) for id_, document in batch.label_sets.items()}
    sizes = {id_: len(document) for id_, document in batch.label_sets.items()}
    metrics: list[Metric] = []
    size = 0
    for start in range(0, batch.rows, _ROWS_MAX):
        for row in batch.columns.slice(start, _ROWS_MAX).to_pylist():
            set_id = row["label_set_id"]
            names = row["service_name"], row["metric_name"]
            grows = _ROW_BYTES + sum(map(len, names)) + sizes.get(set_id, 0)
            if metrics and (len(metrics) == _ROWS_MAX or size + grows > _BYTES_MAX):
                yield TailMetricsResponse(metrics=metrics, dropped=dropped)
                metrics, size, dropped = [], 0, 0
            size += grows
            of_row = {} if set_id == NO_LABELS else labels[set_id]
            metrics.append(Metric(*names, row["value"], row["time"], of_row))
    if metrics or dropped:
        yield TailMetricsResponse(metrics=metrics, dropped=dropped)
