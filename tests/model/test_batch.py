"""Batches: single rows and columns are the same to whoever reads them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingestor.model import MetricBatch, Row, label_set
from ingestor.model.batch import SCHEMA

rows = st.builds(
    Row,
    st.integers(-(2**50), 2**50),
    st.text(min_size=1, max_size=5),
    st.text(min_size=1, max_size=5),
    st.floats(allow_nan=False),
    st.integers(0, 2**63 - 1),
)


def rows_of(batch: MetricBatch) -> list[Row]:
    columns: list[list[Any]] = [column.to_pylist() for column in batch.columns.columns[1:]]
    times = batch.columns.column("time").cast("int64").to_pylist()
    return [Row(*values) for values in zip(times, *columns, strict=True)]


@given(st.lists(st.one_of(rows, st.lists(rows, min_size=1, max_size=4)), min_size=1, max_size=6))
def test_concat_keeps_every_row_in_order(parts: list[Row | list[Row]]) -> None:
    """Whatever mixture of single rows and columns is joined: same rows, same order, one schema."""
    batches = [
        MetricBatch.of_row(part, {}) if isinstance(part, Row) else MetricBatch.of_rows(part, {})
        for part in parts
    ]
    joined = MetricBatch.concat(batches)
    expected = [row for part in parts for row in ([part] if isinstance(part, Row) else part)]
    assert rows_of(joined) == expected
    assert joined.rows == len(expected) == sum(batch.rows for batch in batches)
    assert joined.columns.schema == SCHEMA


def test_concat_joins_label_sets() -> None:
    """The joined batch names each label set that one of its parts named."""
    one, two = label_set({"a": "1"}), label_set({"a": "2"})
    parts = [
        MetricBatch.of_row(Row(0, "s", "m", 1.0, each.id), {each.id: each.document})
        for each in (one, two, one)
    ]
    assert MetricBatch.concat(parts).label_sets == {one.id: '{"a":"1"}', two.id: '{"a":"2"}'}


def test_a_single_row_counts_what_it_takes_in_memory() -> None:
    """The bound in bytes is worth something only if small requests don't count as nothing."""
    small = MetricBatch.of_row(Row(0, "s", "m", 1.0), {})
    labelled = MetricBatch.of_row(Row(0, "s", "m", 1.0, 1), {1: "x" * 1000})
    assert small.size_bytes > 500
    assert labelled.size_bytes - small.size_bytes > 1000
