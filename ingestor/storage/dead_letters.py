"""The table `dead_letters`: rows that were acknowledged and can't be stored, whole, with the reason.

It is written in the transaction that leaves them out; nothing here ever drops one.
"""

from __future__ import annotations

import asyncio
import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import pyarrow as pa

from ingestor.model import DeadRow, Delivery, MetricBatch
from ingestor.model.labels import NO_LABELS
from ingestor.storage.transactions import Connection, until_lost

# At once: so many are made in a thread while the loop runs on.
_WRITTEN_MAX = 2_000
_COLUMNS = ("sqlstate", "reason", "time", "metric", "journal", "position", "row", "request_id")
_OF_POSITION = """
SELECT "row", sqlstate, reason FROM dead_letters WHERE journal = $1 AND position = $2 ORDER BY "row"
"""


async def write(connection: Connection, journal: UUID, delivery: Delivery, dead: Sequence[DeadRow]) -> None:
    """Writes these rows of the delivery's batch on this connection, as part of its transaction."""
    encoding = connection.get_settings().server_encoding
    for start in range(0, len(dead), _WRITTEN_MAX):
        records = await asyncio.to_thread(
            _records, journal, delivery, dead[start : start + _WRITTEN_MAX], encoding
        )
        copying = connection.copy_records_to_table("dead_letters", columns=_COLUMNS, records=records)
        await until_lost(connection, copying)


async def of_position(connection: Connection, journal: UUID, position: int) -> list[DeadRow]:
    """What was written for a delivery that went to this position."""
    return [DeadRow(*row) for row in await connection.fetch(_OF_POSITION, journal, position)]


def _records(
    journal: UUID, delivery: Delivery, dead: Sequence[DeadRow], encoding: str
) -> list[tuple[Any, ...]]:
    ids = _request_ids(delivery, [each.row for each in dead])
    metrics = _metrics(delivery.batch, [each.row for each in dead])
    return [
        (each.sqlstate, _fit(each.reason, encoding), time, metric, journal, delivery.position, each.row, id_)
        for each, (time, metric), id_ in zip(dead, metrics, ids, strict=True)
    ]


def _fit(reason: str, encoding: str) -> str:
    """A reason that every database can keep."""
    text = reason.replace("\0", "\\0")
    return (
        text
        if encoding.upper() in {"UTF8", "UTF-8", "UNICODE"}
        else text.encode("ascii", "backslashreplace").decode()
    )


def _request_ids(delivery: Delivery, rows: Sequence[int]) -> Iterator[bytes | None]:
    firsts = [placed.first for placed in delivery.requests]
    for row in rows:
        index = bisect_right(firsts, row) - 1
        placed = delivery.requests[index] if index >= 0 else None
        yield placed.request.id.encode() if placed and row < placed.first + placed.rows else None


def _metrics(batch: MetricBatch, rows: Sequence[int]) -> Iterator[tuple[datetime, str]]:
    """Each row's time, and the row as the API's Metric in JSON."""
    for row in batch.columns.take(pa.array(rows, pa.int64())).to_pylist():
        yield row["time"], metric_json(row, batch.label_sets)


def metric_json(row: Mapping[str, Any], label_sets: Mapping[int, str]) -> str:
    """A row of the batch as the API's Metric. In ASCII, which every database can keep; it begins with the service,
    by which `ingestor dead-letters` finds it."""
    labels = {} if row["label_set_id"] == NO_LABELS else json.loads(label_sets[row["label_set_id"]])
    value = row["value"]
    metric = {
        "service_name": row["service_name"],
        "metric_name": row["metric_name"],
        "value": value if math.isfinite(value) else str(value),
        "time": row["time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "labels": labels,
    }
    return json.dumps(metric, separators=(",", ":"))
