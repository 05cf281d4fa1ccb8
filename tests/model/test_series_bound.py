"""Which series find room, as a function of what came and when."""

from __future__ import annotations

import random

import numpy as np

from ingestor.model import MetricBatch, Row
from ingestor.model.series_bound import SeriesBound, series_of

HOUR_S = 3600.0
SLICE_S = 300.0


def batch(*names: str, service: str = "s", labels: int = 0) -> MetricBatch:
    return MetricBatch.of_rows([Row(0, service, name, 1.0, labels) for name in names], {})


def admitted(
    bound: SeriesBound, rows: MetricBatch, now_s: float, caller: str = "k", own: int | None = None
) -> str:
    """`+` for each row that finds room, `-` for each other."""
    return "".join("-+"[good] for good in bound.admit(caller, own, series_of(rows), now_s)[0].tolist())


def test_known_series_go_on_and_new_ones_beyond_do_not() -> None:
    """In the order of no matter what; every row of a series fares alike."""
    bound = SeriesBound(3)
    assert admitted(bound, batch("a", "b", "a", "b"), 0) == "++++"
    assert sorted(admitted(bound, batch("c", "d"), 1)) == ["+", "-"]
    assert admitted(bound, batch("e", "a", "e", "b"), 2) == "-+-+"


def test_a_series_is_its_names_and_labels() -> None:
    """Neither one alone; and one row at a time is the same as many."""
    bound = SeriesBound(4)
    for service in ("s", "t"):
        for labels in (0, 7):
            assert admitted(bound, batch("a", service=service, labels=labels), 0) == "+"
    assert admitted(bound, batch("b"), 0) == "-"
    single = MetricBatch.of_row(Row(0, "s", "a", 1.0, 7), {})
    assert admitted(bound, single, 0) == "+"
    assert admitted(bound, MetricBatch.of_row(Row(0, "sa", "", 1.0), {}), 0) == "-"


def test_what_was_not_written_for_an_hour_makes_room() -> None:
    """And what was written lately keeps its place, hour after hour."""
    bound = SeriesBound(2)
    assert admitted(bound, batch("a", "b"), 0) == "++"
    for now_s in np.arange(0, 3 * HOUR_S, 1000.0):
        assert admitted(bound, batch("a"), float(now_s)) == "+"
        assert admitted(bound, batch("c"), float(now_s)) == ("-" if now_s <= HOUR_S + SLICE_S else "+")
    assert admitted(bound, batch("b"), 3 * HOUR_S) == "-"


def test_callers_have_bounds_of_their_own() -> None:
    """Each its own room, by its own bound where it has one; who wrote nothing for an hour takes no memory."""
    bound = SeriesBound(1)
    assert admitted(bound, batch("a"), 0, "one") == "+"
    assert admitted(bound, batch("b"), 0, "two") == "+"
    assert sorted(admitted(bound, batch("a", "b", "c"), 0, "three", own=2)) == ["+", "+", "-"]
    assert admitted(bound, batch("b"), 2 * HOUR_S, "two") == "+"
    assert list(bound._seen) == ["two"]


def test_what_was_not_taken_is_given_back() -> None:
    """The new ones of that batch, less what another one has written since; what was known before stays."""
    bound = SeriesBound(4)
    assert admitted(bound, batch("a"), 0) == "+"
    good, claim = bound.admit("k", None, series_of(batch("a", "b", "c", "d")), 0)
    assert good.all()
    assert admitted(bound, batch("c"), 0) == "+"
    bound.give_back(claim)
    assert sorted(admitted(bound, batch("e", "f", "g"), 0)) == ["+", "+", "-"]
    assert admitted(bound, batch("a", "c", "b"), 0) == "++-"
    bound.give_back(claim)
    assert admitted(bound, batch("a", "c", "b"), 0) == "++-"
    assert admitted(bound, batch("x"), 2 * HOUR_S) == "+"
    bound.give_back(claim)
    bound.give_back(claim._replace(caller="nobody"))


def test_it_is_as_a_plain_set_would_be() -> None:
    """Random batches, compared with a dictionary of names and times."""
    chance, bound, model = random.Random(7), SeriesBound(40), dict[str, int]()
    for step in range(400):
        now_s = step * 97.0
        rows = [str(chance.randrange(chance.choice((20, 200)))) for _ in range(chance.randrange(1, 30))]
        model = {name: last for name, last in model.items() if last >= now_s // SLICE_S - 12}
        told = admitted(bound, batch(*rows), now_s)
        taken = {name for name, good in zip(rows, told, strict=True) if good == "+"}
        assert all((name in taken) is (good == "+") for name, good in zip(rows, told, strict=True))
        known = set(rows) & model.keys()
        assert known <= taken
        assert len(taken - known) == min(len(set(rows) - known), 40 - len(model))
        model.update(dict.fromkeys(taken, int(now_s // SLICE_S)))
        assert len(bound._seen["k"].hashes) == len(model) <= 40
