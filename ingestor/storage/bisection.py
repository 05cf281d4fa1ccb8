"""Separates rows that the database refuses from those that it takes, inside one transaction, and stores the latter.

Ranges are tried by COPY within savepoints and halved when they are refused, a bounded number of times; what is left
is stored one by one on the server. A failure that is not a row's fault ends it, and nothing is committed then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from ingestor.errors import RowsRefused
from ingestor.model import DeadRow, MetricBatch
from ingestor.model.batch import named
from ingestor.storage.faults import FAILURES, classify
from ingestor.storage.label_sets import LabelSets
from ingestor.storage.transactions import Connection

_PROBES_MAX = 64
# Fewer are not worth a probe, which costs some round trips.
_PROBED_ROWS_MIN = 256
# One by one at once: few at first, because nobody knows what a trigger takes for each of them.
_ONE_BY_ONE_MIN, _ONE_BY_ONE_MAX = 500, 5_000
_QUICK_S = 1.0
_ONE_BY_ONE = "SELECT * FROM store_metrics_one_by_one($1, $2, $3, $4, $5, $6)"

Copy = Callable[[Connection, pa.RecordBatch], Awaitable[None]]
"""Copies rows on this connection."""


class _Range(NamedTuple):
    start: int
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.start

    def halves(self) -> tuple[_Range, _Range]:
        middle = (self.start + self.end) // 2
        return _Range(self.start, middle), _Range(middle, self.end)


class Bisection:
    """Stores some rows of a batch on a connection inside a transaction. `progress` is called now and then: as long
    as it is, something happens."""

    def __init__(
        self, connection: Connection, copy: Copy, label_sets: LabelSets, progress: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._copy = copy
        self._label_sets = label_sets
        self._progress = progress

    async def store(self, batch: MetricBatch) -> list[DeadRow]:
        """Stores what can be stored; returns the others, in order. Raises what asyncpg raises and StorageError."""
        columns = batch.columns
        with_sets = not await self._took(lambda: self._label_sets.insert(self._connection, batch.label_sets))
        refused: list[_Range] = []
        ranges = deque(_Range(0, columns.num_rows).halves())
        probes = 0
        while ranges:
            tried = ranges.popleft()  # the largest ones first: what the probes suffice for is spread evenly
            if tried.rows < _PROBED_ROWS_MIN or probes == _PROBES_MAX:
                refused.append(tried)
                continue
            probes += 1
            if not await self._took(partial(self._copy_range, batch, columns, tried, with_sets)):
                ranges.extend(tried.halves())
        documents = batch.label_sets if with_sets else {}
        dead: list[DeadRow] = []
        for each in sorted(refused):
            dead.extend(await self._one_by_one(columns, each, documents))
        return dead

    async def _took(self, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Whether the database takes it; when it doesn't, for a row's sake, it is as if it had not been tried."""
        self._progress()
        await self._connection.execute("SAVEPOINT probe")
        try:
            await attempt()
            await self._connection.execute("RELEASE probe")
        except FAILURES as error:
            if not isinstance(classify(error), RowsRefused):
                raise
            await self._connection.execute("ROLLBACK TO probe; RELEASE probe")
            return False
        return True

    async def _copy_range(
        self, batch: MetricBatch, columns: pa.RecordBatch, some: _Range, with_sets: bool
    ) -> None:
        rows = columns.slice(some.start, some.rows)
        if with_sets:
            await self._label_sets.insert(self._connection, named(rows, batch.label_sets))
        await self._copy(self._connection, rows)

    async def _one_by_one(
        self, columns: pa.RecordBatch, some: _Range, documents: Mapping[int, str]
    ) -> list[DeadRow]:
        dead: list[DeadRow] = []
        size, start = _ONE_BY_ONE_MIN, some.start
        while start < some.end:
            self._progress()
            began_s = time.monotonic()
            end = min(some.end, start + size)
            found = await self._connection.fetch(
                _ONE_BY_ONE, *_arguments(columns.slice(start, end - start), documents)
            )
            dead.extend(DeadRow(start + row["refused"] - 1, row["sqlstate"], row["reason"]) for row in found)
            start = end
            if time.monotonic() - began_s < _QUICK_S:
                size = min(2 * size, _ONE_BY_ONE_MAX)
        return dead


def _arguments(columns: pa.RecordBatch, documents: Mapping[int, str]) -> list[list[Any]]:
    """What store_metrics_one_by_one takes."""
    times, services, names, values, ids = columns.columns
    texts = [names_.cast(pa.binary()).to_pylist() for names_ in (services, names)]
    sets = ids.to_pylist()
    with_rows = [documents[id_].encode() if id_ in documents else None for id_ in sets]
    return [times.to_pylist(), *texts, values.to_pylist(), sets, with_rows]
