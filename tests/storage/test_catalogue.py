"""The catalogue of series as columns does what one span a series would: each is written in time, never more than is
stored, and what is behind is not forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.model import spans
from ingestor.model.batch import SCHEMA
from ingestor.model.spans import SeriesKey, Spans, spans_of
from ingestor.storage import catalogue
from ingestor.storage.catalogue import LAG_S, Catalogue, Due

_Told = dict[SeriesKey, tuple[int, int]]
_SERIES = [("a", "x"), ("a", "y"), ("ab", "x"), ("b", "x"), ("ü", "x")]


def told(spans: Spans) -> _Told:
    times = zip(spans.first_us.tolist(), spans.last_us.tolist(), strict=True)
    return dict(zip(spans.keys(), times, strict=True))


def both(one: tuple[int, int], other: tuple[int, int] | None) -> tuple[int, int]:
    return one if other is None else (min(one[0], other[0]), max(one[1], other[1]))


@dataclass
class Model:
    """The same with an object for each series."""

    known: dict[SeriesKey, tuple[tuple[int, int], float]] = field(default_factory=dict)
    behind: _Told = field(default_factory=dict)

    def due(self, spans: _Told, now_s: float) -> tuple[_Told, _Told]:
        written, behind = dict[SeriesKey, tuple[int, int]](), dict[SeriesKey, tuple[int, int]]()
        for key, span in spans.items():
            known = self.known.get(key)
            if known is not None and known[0] == both(known[0], span):
                continue
            late = known is None or now_s - known[1] >= LAG_S
            (written if late else behind)[key] = both(span, self.behind.get(key))
        return written, behind

    def committed(self, written: Mapping[SeriesKey, tuple[int, int]], behind: _Told, now_s: float) -> None:
        for key, span in written.items():
            known = self.known.get(key)
            self.known[key] = (both(span, None if known is None else known[0]), now_s)
            if key in self.behind and both(span, self.behind[key]) == span:
                del self.behind[key]
        for key, span in behind.items():
            self.behind[key] = both(span, self.behind.get(key))

    def overdue(self, now_s: float, *, all_: bool) -> _Told:
        return {
            key: span
            for key, span in self.behind.items()
            if all_ or key not in self.known or now_s - self.known[key][1] >= LAG_S
        }


_spans = st.dictionaries(
    st.sampled_from(_SERIES), st.tuples(st.integers(-5, 20), st.integers(0, 6)), min_size=1
).map(lambda drawn: {key: (first, first + length) for key, (first, length) in drawn.items()})
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("store"), _spans, st.booleans()),
        st.tuples(st.just("beside"), _spans, st.booleans()),  # another transaction commits meanwhile
        st.tuples(st.just("catch up"), st.booleans()),
        st.tuples(st.just("forget")),
        st.tuples(st.just("wait"), st.sampled_from([1.0, LAG_S])),
    ),
    max_size=12,
)


@given(_steps)
def test_it_does_what_one_span_a_series_would(steps: list[tuple[object, ...]]) -> None:
    """Whatever is stored, fails, is forgotten, or is committed between a decision and its commit."""
    now_s = 1_000.0
    ours, model = Catalogue(lambda: now_s), Model()

    def committed(due: Due, expected: tuple[_Told, _Told]) -> None:
        ours.committed(due)
        model.committed(*expected, now_s)

    for step in steps:
        match step:
            case ["store" | "beside" as how, dict() as drawn, bool() as commits]:
                due, expected = ours.due(Spans.of(drawn)), model.due(drawn, now_s)
                assert (told(due.written), told(due.behind)) == expected
                if how == "beside":
                    late = (
                        ours.overdue(all_=True),
                        (model.overdue(now_s, all_=True), dict[SeriesKey, tuple[int, int]]()),
                    )
                    committed(due, expected)
                    due, expected = late
                if commits:
                    committed(due, expected)
            case ["catch up", bool() as all_]:
                due = ours.overdue(all_=all_)
                expected = (model.overdue(now_s, all_=all_), {})
                assert (told(due.written), told(due.behind)) == expected
                committed(due, expected)
            case ["forget"]:
                ours.forget()
                model.known.clear()
            case ["wait", float() as seconds]:
                now_s += seconds
    assert told(ours.overdue(all_=True).written) == model.overdue(now_s, all_=True)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what is behind, which is still to be written."""
    monkeypatch.setattr(catalogue, "_REMEMBERED_MAX", 6)
    now_s = 0.0
    ours = Catalogue(lambda: now_s)
    ours.committed(ours.due(Spans.of({("s", str(each)): (1, 1) for each in range(5)})))
    ours.committed(ours.due(Spans.of({("s", "0"): (1, 2), ("s", "1"): (1, 3)})))
    for number in range(100):
        ours.committed(ours.due(Spans.of({("t", str(number)): (number, number)})))
        assert len(ours._names) == len(ours._numbers) <= 6
        assert len(ours._series) <= 12
    now_s = LAG_S
    assert told(ours.overdue().written) == {("s", "0"): (1, 2), ("s", "1"): (1, 3)}
    due = ours.due(Spans.of({("s", "0"): (5, 5), ("t", "99"): (99, 99), ("t", "0"): (0, 0)}))
    assert told(due.written) == {("s", "0"): (1, 5), ("t", "0"): (0, 0)}


def test_many_that_are_behind_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than should be remembered, until they are written."""
    monkeypatch.setattr(catalogue, "_REMEMBERED_MAX", 4)
    ours = Catalogue(lambda: 0.0)
    for last in (1, 2):
        for number in range(20):
            ours.committed(ours.due(Spans.of({("s", str(number)): (1, last)})))
            if last == 1:  # known, and behind at once
                ours.committed(ours.due(Spans.of({("s", str(number)): (1, 2)})))
    assert told(ours.overdue(all_=True).written) == {("s", str(number)): (1, 2) for number in range(20)}


@pytest.mark.parametrize("few_rows", [0, 4, 5])
def test_spans_of_columns(few_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By service and metric, not by one of them. Few rows one by one, and many in columns, give the same in the
    same order."""
    monkeypatch.setattr(spans, "_FEW_ROWS", few_rows)
    columns = pa.RecordBatch.from_arrays(
        [
            pa.array([3, 1, 2, -7, 5]).cast(SCHEMA.field("time").type),
            pa.array(["a", "a", "a", "b", "a"]),
            pa.array(["x", "x", "y", "x", "x"]),
            pa.array([0.0] * 5),
            pa.array([0] * 5, pa.int64()),
        ],
        schema=SCHEMA,
    )
    assert told(spans_of(columns)) == {("a", "x"): (1, 5), ("a", "y"): (2, 2), ("b", "x"): (-7, -7)}
    assert told(spans_of(columns.slice(0, 0))) == {}
    assert told(Spans.of({})) == {}
    assert told(spans_of(columns).at(np.array([1]))) == {("a", "y"): (2, 2)}
