"""What an answer means, and that counting loses nothing."""

from __future__ import annotations

import random

import pytest

from ingestor.loadgen.answers import Answer, Kind, accepted, failed
from ingestor.loadgen.latency import Histogram
from ingestor.loadgen.outcomes import Outcomes, SeqSet
from ingestor.loadgen.schedule import Request


def test_quantiles_are_within_a_percent_and_the_maximum_is_exact() -> None:
    """Compared with the sorted values."""
    generator = random.Random(3)
    values = sorted(generator.lognormvariate(-5, 1) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for quantile in (0.5, 0.95, 0.99):
        exact = values[int(quantile * len(values)) - 1]
        assert histogram.quantile_s(quantile) == pytest.approx(exact, rel=0.011)
    assert histogram.quantile_s(1.0) == histogram.max_s == values[-1]


def test_a_seq_set_is_a_set() -> None:
    """Membership and newness as a set has them, in any order."""
    plain: set[int] = set()
    bitmap = SeqSet()
    for seq in random.Random(5).choices(range(3000), k=2000):
        assert bitmap.add(seq) == (seq not in plain)
        plain.add(seq)
    assert {seq for seq in range(4000) if seq in bitmap} == plain


def test_outcomes_know_every_row() -> None:
    """Rows of requests that were answered out of order, rejected rows, and rows that were never sent."""
    outcomes = Outcomes(batch=10)
    outcomes.record(Request(2, 20, 5, None), Answer(Kind.ACKNOWLEDGED, rejected=((1, "no"),)))
    outcomes.record(Request(0, 0, 10, None), Answer(Kind.REFUSED, "UNAVAILABLE"))
    expected = {0: Kind.REFUSED, 9: Kind.REFUSED, 10: Kind.UNSENT, 20: Kind.ACKNOWLEDGED, 21: Kind.REJECTED}
    assert {seq: outcomes.of(seq) for seq in expected} == expected
    assert outcomes.of(25) == outcomes.of(-1) == outcomes.of(10**15) == Kind.UNSENT


@pytest.mark.parametrize(("count", "rejected"), [(9, ()), (9, ((10, ""),)), (8, ((1, ""), (1, "")))])
def test_an_acknowledgement_that_does_not_add_up_acknowledges_nothing(
    count: int, rejected: tuple[tuple[int, str], ...]
) -> None:
    """Rows unaccounted for, an index out of range, an index named twice."""
    assert accepted(10, count, rejected).kind is Kind.UNANSWERED


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        ("RESOURCE_EXHAUSTED", Kind.REFUSED, True),
        ("UNAVAILABLE", Kind.REFUSED, True),
        ("INVALID_ARGUMENT", Kind.REFUSED, False),
        ("DEADLINE_EXCEEDED", Kind.UNANSWERED, False),
        ("INTERNAL", Kind.UNANSWERED, False),
    ],
)
def test_only_a_refusal_that_took_nothing_is_tried_again(code: str, kind: Kind, retryable: bool) -> None:
    """Whatever leaves open whether the rows were taken is unanswered, and final."""
    answer = failed(code, "")
    assert (answer.kind, answer.retryable) == (kind, retryable)
