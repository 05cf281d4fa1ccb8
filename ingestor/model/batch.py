"""Rows of the table `metrics` on their way from a request to COPY, columnar as soon as there are many.

A batch is immutable. The one row of a unary request stays a tuple until batches are joined, because an
Arrow array of one value costs more time and memory than the value; everything downstream sees columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from sys import getsizeof
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingestor.model.labels import NO_LABELS
from ingestor.model.spans import Spans

Mask: TypeAlias = npt.NDArray[np.bool_]
SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("service_name", pa.string(), nullable=False),
        pa.field("metric_name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("label_set_id", pa.int64(), nullable=False),
    ]
)
"""The one Arrow schema: the table's columns, in the order in which COPY names them."""

# What a single row costs beside its strings, measured as growth of the process over 100,000 waiting ones: the
# batch, its row and its place in the queue, an int, a float, and the allocator's rounding.
_ROW_BYTES = 560
# A dict of one label set, and each set's id.
_LABEL_SETS_BYTES, _LABEL_SET_BYTES = 232, 36


class Row(NamedTuple):
    """One row: `time_us` in microseconds since 1970-01-01 UTC, `label_set_id` 0 for no labels."""

    time_us: int
    service_name: str
    metric_name: str
    value: float
    label_set_id: int = NO_LABELS


class MetricBatch:
    """Valid rows and the label sets that they name.

    `rows` is their number, `size_bytes` what they take in memory (an estimate for single rows), `label_sets`
    maps each id in the column to its set as JSON text, `by_series` says that rows of one series lie together, in
    the order of time, `spans` are its series' (None when nobody has looked).
    """

    __slots__ = ("_columns", "_row", "by_series", "label_sets", "rows", "size_bytes", "spans")

    def __init__(
        self, columns: pa.RecordBatch | None, row: Row | None, label_sets: Mapping[int, str], size_bytes: int
    ) -> None:
        self._columns = columns
        self._row = row
        self.label_sets = label_sets
        self.rows: int = 1 if columns is None else columns.num_rows
        self.size_bytes = size_bytes
        self.by_series = False
        self.spans: Spans | None = None

    @classmethod
    def of_row(cls, row: Row, label_sets: Mapping[int, str]) -> Self:
        """A batch of one."""
        size = (
            _ROW_BYTES + getsizeof(row.service_name) + getsizeof(row.metric_name) + _label_bytes(label_sets)
        )
        return cls(None, row, label_sets, size)

    @classmethod
    def of_rows(cls, rows: Sequence[Row], label_sets: Mapping[int, str]) -> Self:
        """A batch of many, in their order."""
        return cls.of_columns(_columns_of(rows), label_sets)

    @classmethod
    def of_columns(cls, columns: pa.RecordBatch, label_sets: Mapping[int, str]) -> Self:
        """A batch of an Arrow record batch in `SCHEMA`."""
        # Of whole buffers: a slice keeps what it was cut from.
        return cls(columns, None, label_sets, columns.get_total_buffer_size() + _label_bytes(label_sets))

    def sorted_as(self, columns: pa.RecordBatch) -> Self:
        """The same batch with its rows in the order of `columns`, which is by series and time."""
        batch = type(self)(columns, None, self.label_sets, self.size_bytes)
        batch.by_series = True
        return batch

    def filtered(self, kept: Mask) -> MetricBatch:
        """The rows of which that is true alone, with the label sets that they name. Holds nothing of this batch."""
        columns = self.columns.filter(pa.array(kept))
        return type(self).of_columns(columns, named(columns, self.label_sets))

    def without(self, rows: Sequence[int]) -> MetricBatch:
        """The same without these rows, by number."""
        if not rows:
            return self
        kept: Mask = np.ones(self.rows, np.bool_)
        kept[list(rows)] = False
        return self.filtered(kept)

    @property
    def columns(self) -> pa.RecordBatch:
        """The rows as one Arrow record batch in `SCHEMA`."""
        return _columns_of([self._row]) if self._row is not None else self._columns

    @classmethod
    def concat(cls, batches: Sequence[MetricBatch]) -> MetricBatch:
        """The rows of all of them, in order, as one. At least one batch."""
        if len(batches) == 1:
            return batches[0]
        parts: list[pa.RecordBatch] = []
        for single, group in groupby(batches, key=lambda batch: batch._row is not None):
            if single:
                parts.append(_columns_of([batch._row for batch in group if batch._row is not None]))
            else:
                parts.extend(batch._columns for batch in group)
        label_sets = {id_: text for batch in batches for id_, text in batch.label_sets.items()}
        return cls.of_columns(pa.concat_batches(parts), label_sets)


def named(columns: pa.RecordBatch, label_sets: Mapping[int, str]) -> dict[int, str]:
    """Those of the label sets that these rows name."""
    ids = pc.unique(columns.column("label_set_id")).to_pylist() if label_sets else []
    return {id_: label_sets[id_] for id_ in ids if id_ != NO_LABELS}


def _columns_of(rows: Sequence[Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _label_bytes(label_sets: Mapping[int, str]) -> int:
    if not label_sets:
        return 0
    return _LABEL_SETS_BYTES + _LABEL_SET_BYTES * len(label_sets) + sum(map(getsizeof, label_sets.values()))
