"""Reads metrics as points, and the catalogue of series.

Each question is one statement, or two where labels have to be found first, within what `connections` allows; what
this database can't hold at all was not found in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import asyncpg
import numpy as np
import numpy.typing as npt

from ingestor.errors import FieldViolation, Invalid
from ingestor.model.questions import MetricPoints, MetricQuestion, SeriesQuestion, StoredSeries
from ingestor.storage.reading import queries
from ingestor.storage.reading.connections import Busy, ReadConnections, ReadLimits
from ingestor.storage.transactions import Connection

# A text that the database's encoding lacks.
_NOT_IN_IT = (asyncpg.UntranslatableCharacterError, asyncpg.CharacterNotInRepertoireError)
# Of label sets by their ids, which the column store finds without reading rows; more are joined.
_IDS_MAX = 1_000
# An array's dimension, flags, type, length and bounds; and of each element the length. PostgreSQL counts from 2000.
_ARRAY_HEAD_BYTES = 20
_EPOCH_US = 946_684_800_000_000
_BETWEEN = ("p50", "p95", "p99")


class DatabaseReader:
    """One database, by connections of its own. `bucket` is what `queries` says of it."""

    def __init__(self, connections: ReadConnections, bucket: str) -> None:
        self._connections = connections
        self._bucket = bucket

    @classmethod
    async def open(
        cls, url: str, limits: ReadLimits, busy: Busy, *, timescaledb_schema: str | None
    ) -> DatabaseReader:
        """The database at this address; `timescaledb_schema` is that of the extension's functions, where it is.
        `busy` says whether storing is: then questions had better wait."""
        bucket = queries.DATE_BIN
        if timescaledb_schema is not None:
            bucket = queries.TIME_BUCKET.format(schema=timescaledb_schema)
        return cls(await ReadConnections.open(url, limits, busy), bucket)

    def move(self, url: str) -> None:
        """The same database is at another address from now on."""
        self._connections.move(url)

    async def close(self, timeout_s: float) -> None:
        """Closes the connections, those that are still busy by force after `timeout_s` seconds."""
        await self._connections.close(timeout_s)

    async def points(self, question: MetricQuestion) -> MetricPoints:
        """In the order of time. Raises Invalid, Overloaded, TooSlow or Unavailable."""

        async def ask(connection: Connection) -> MetricPoints:
            try:
                points = await self._points(connection, question)
            except _NOT_IN_IT:
                return MetricPoints.none()
            except asyncpg.NumericValueOutOfRangeError:
                raise _beyond(question, "the sum of an interval's values") from None
            if question.aggregation in _BETWEEN and np.isinf(points.values).any():
                # Of values so far apart that the database's way between them is endless.
                raise _beyond(question, "the distance of an interval's values")
            return points

        return await self._connections.ask(ask)

    async def series(self, question: SeriesQuestion) -> Sequence[StoredSeries]:
        """In the order of their names' bytes. Raises Overloaded, TooSlow or Unavailable."""
        arguments = (
            queries.beginning(question.service_prefix),
            queries.beginning(question.metric_prefix),
            [queries.beginning(prefix) for prefix in question.readable],
            *question.after,
            question.limit,
        )

        async def ask(connection: Connection) -> list[StoredSeries]:
            try:
                return [StoredSeries(*row) for row in await connection.fetch(queries.SERIES, *arguments)]
            except _NOT_IN_IT:
                return []

        return await self._connections.ask(ask)

    async def _points(self, connection: Connection, question: MetricQuestion) -> MetricPoints:
        labels, arguments = "", list[Any]()
        if question.labels:
            document = json.dumps(dict(question.labels))
            ids = [row["id"] for row in await connection.fetch(queries.LABEL_SETS, document, _IDS_MAX + 1)]
            if not ids:
                return MetricPoints.none()
            if len(ids) > _IDS_MAX:
                labels, arguments = queries.LABELS_JOINED, [document]
            else:
                labels, arguments = queries.LABELS_BY_ID, [ids]
        query = queries.POINTS.format(
            bucket=self._bucket, aggregate=queries.AGGREGATES[question.aggregation], labels=labels
        )
        found = await connection.fetchrow(
            query,
            question.service_name,
            question.metric_name,
            question.start,
            question.end,
            question.interval,
            *arguments,
        )
        if found is None or found[0] is None:
            return MetricPoints.none()
        return MetricPoints(_elements(found[0], ">i8") + _EPOCH_US, _elements(found[1], ">f8"))


def _elements(array: bytes, type_: str) -> npt.NDArray[Any]:
    """Of an array as array_send gives it, without NULLs: numbers of eight bytes."""
    elements = np.frombuffer(array, [("length", ">i4"), ("element", type_)], offset=_ARRAY_HEAD_BYTES)
    return elements["element"].astype(np.dtype(type_).newbyteorder("="))


def _beyond(question: MetricQuestion, what: str) -> Invalid:
    problem = f"{question.aggregation} can't be told: {what} is beyond a double's range; ask for another"
    return Invalid.fields([FieldViolation("aggregation", problem)])
