"""dead_letters seen by an operator: to look at, to store again once the reason is gone, or to throw away.

Nothing is done by halves: a letter leaves the table in the transaction that stores its metric.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ingestor.model import Row, label_set
from ingestor.model.batch import MetricBatch
from ingestor.model.spans import SeriesKey, Spans
from ingestor.storage.catalogue import Catalogue
from ingestor.storage.database import Database
from ingestor.storage.faults import storage_errors
from ingestor.storage.partitions import WeeklyPartitions
from ingestor.storage.transactions import Connection
from ingestor.timestamps import microseconds

_CHUNK = 1_000
_LIST = """
SELECT id, dead_at, sqlstate, reason, time, metric, journal, position, request_id FROM dead_letters
  WHERE ($1::text IS NULL OR metric->>'service_name' = $1) AND ($2::timestamptz IS NULL OR dead_at >= $2)
  ORDER BY id DESC LIMIT $3
"""
_SOME = """
SELECT id, dead_at, sqlstate, reason, time, metric, journal, position, request_id FROM dead_letters
  WHERE id = ANY ($1::bigint[]) ORDER BY id
"""
_CHOSEN = """
SELECT id FROM dead_letters
  WHERE ($1::text IS NULL OR metric->>'service_name' = $1) AND ($2::timestamptz IS NULL OR dead_at < $2)
  ORDER BY id
"""
_LOCKED = """
SELECT id, time, metric FROM dead_letters WHERE id = ANY ($1::bigint[]) ORDER BY id FOR UPDATE SKIP LOCKED
"""
_STORE = "SELECT refused, sqlstate, reason FROM store_metrics_one_by_one($1, $2, $3, $4, $5, $6)"
_DELETE = "DELETE FROM dead_letters WHERE id = ANY ($1::bigint[])"
_STAYS = "UPDATE dead_letters SET sqlstate = $2, reason = $3, dead_at = now() WHERE id = $1"


@dataclass(frozen=True, slots=True)
class Letter:
    """One metric that the database refused. `metric` is the API's Metric as JSON has it."""

    id: int
    dead_at: datetime
    sqlstate: str | None
    reason: str
    time: datetime
    metric: dict[str, Any]
    journal: str
    position: int
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """So many are stored now, and so many were refused again."""

    stored: int
    refused: int


class Letters:
    """The letters of an open database. Every method raises StorageError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._partitions = (
            WeeklyPartitions(database.transactions) if database.facts.table == "partitioned" else None
        )

    async def newest(self, limit: int, *, service: str | None, since: datetime | None) -> list[Letter]:
        """The newest first."""
        return await self._fetch(_LIST, service, since, limit)

    async def some(self, ids: Sequence[int]) -> list[Letter]:
        """Those of these that are there."""
        return await self._fetch(_SOME, ids)

    async def chosen(self, *, service: str | None, before: datetime | None) -> list[int]:
        """The ids of those, oldest first."""
        with storage_errors():
            async with self._database.transactions.transaction() as connection:
                return [row["id"] for row in await connection.fetch(_CHOSEN, service, before)]

    async def replay(self, ids: Sequence[int]) -> AsyncIterator[Replayed]:
        """Stores their metrics, a chunk in a transaction; tells of each chunk. Those that are refused again
        stay, with the new reason."""
        for start in range(0, len(ids), _CHUNK):
            with storage_errors():
                yield await self._replay(ids[start : start + _CHUNK])

    async def purge(self, ids: Sequence[int]) -> AsyncIterator[int]:
        """Deletes them, a chunk in a transaction; tells how many of each chunk were there."""
        for start in range(0, len(ids), _CHUNK):
            with storage_errors():
                async with self._database.transactions.transaction() as connection:
                    tag = await connection.execute(_DELETE, ids[start : start + _CHUNK])
            yield int(tag.rpartition(" ")[2])

    async def _fetch(self, query: str, *arguments: object) -> list[Letter]:
        with storage_errors():
            async with self._database.transactions.transaction() as connection:
                return [_letter(row) for row in await connection.fetch(query, *arguments)]

    async def _replay(self, ids: Sequence[int]) -> Replayed:
        if self._partitions is not None:
            found = await self.some(ids)
            rows = [Row(microseconds(each.time), "", "", 0.0) for each in found]
            if rows:
                await self._partitions.ensure(MetricBatch.of_rows(rows, {}).columns.column("time"))
        async with self._database.transactions.transaction() as connection:
            locked = await connection.fetch(_LOCKED, ids)
            refused = await self._store(connection, locked) if locked else {}
            stored = [row for number, row in enumerate(locked, 1) if number not in refused]
            await Catalogue().write(connection, _spans(stored))
            await connection.execute(_DELETE, [row["id"] for row in stored])
            for number, (sqlstate, reason) in refused.items():
                await connection.execute(_STAYS, locked[number - 1]["id"], sqlstate, reason)
        return Replayed(len(stored), len(refused))

    async def _store(self, connection: Connection, letters: Sequence[Any]) -> dict[int, tuple[str, str]]:
        """Those that are refused, by their number from 1."""
        metrics = [json.loads(row["metric"]) for row in letters]
        sets = [label_set(metric["labels"]) if metric.get("labels") else None for metric in metrics]
        refused = await connection.fetch(
            _STORE,
            [row["time"] for row in letters],
            [metric["service_name"].encode() for metric in metrics],
            [metric["metric_name"].encode() for metric in metrics],
            [float(metric["value"]) for metric in metrics],
            [0 if each is None else each.id for each in sets],
            [None if each is None else each.document.encode() for each in sets],
        )
        return {row["refused"]: (row["sqlstate"], row["reason"]) for row in refused}


def _spans(letters: Sequence[Any]) -> Spans:
    spans: dict[SeriesKey, tuple[int, int]] = {}
    for row in letters:
        metric, time_us = json.loads(row["metric"]), microseconds(row["time"])
        key = (metric["service_name"], metric["metric_name"])
        first_us, last_us = spans.get(key, (time_us, time_us))
        spans[key] = (min(first_us, time_us), max(last_us, time_us))
    return Spans.of(spans)


def _letter(row: Any) -> Letter:
    request_id = None if row["request_id"] is None else row["request_id"].decode(errors="replace")
    return Letter(
        row["id"],
        row["dead_at"],
        row["sqlstate"],
        row["reason"],
        row["time"],
        json.loads(row["metric"]),
        str(row["journal"]),
        row["position"],
        request_id,
    )
