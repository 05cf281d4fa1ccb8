"""Questions: what is left open is filled in, what can't be answered is refused by its field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingestor_api.analytics.v1 import ListSeriesRequest, QueryMetricsRequest

from ingestor.errors import Invalid
from ingestor.model import Limits, MetricBatch, Row, label_set
from ingestor.model.questions import EVERYTHING
from ingestor.model.steps import step_for, steps_in
from ingestor.reading.messages import tail_messages
from ingestor.reading.questions import POINTS_MAX, metric_question, series_question
from ingestor.reading.tokens import read_token, write_token

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def query(**fields: object) -> QueryMetricsRequest:
    return QueryMetricsRequest("s", "m", **fields)  # type: ignore[arg-type]


def test_what_is_left_open_is_filled_in() -> None:
    """The last hour, its average, in a round interval that gives some 300 points."""
    question = metric_question(query(), NOW, Limits())
    assert (question.start, question.end) == (NOW - HOUR, NOW)
    assert (question.interval, question.aggregation) == (timedelta(seconds=15), "avg")
    earlier = metric_question(query(end=NOW - DAY), NOW, Limits())
    assert (earlier.start, earlier.end) == (NOW - DAY - HOUR, NOW - DAY)


@pytest.mark.parametrize(
    ("span", "step"),
    [
        (timedelta(seconds=1), timedelta(seconds=1)),
        (timedelta(minutes=5), timedelta(seconds=1)),
        (DAY, timedelta(minutes=5)),
        (7 * DAY, timedelta(hours=1)),
        (3_660 * DAY, timedelta(days=14)),
    ],
)
def test_round_intervals(span: timedelta, step: timedelta) -> None:
    start = NOW.replace(hour=0, microsecond=0)
    assert step_for(start, start + span, 300) == step


_MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(_MOMENTS, st.timedeltas(timedelta(microseconds=1), timedelta(days=40_000)), st.integers(3, 11_000))
def test_a_chosen_interval_keeps_to_its_bound(start: datetime, span: timedelta, points_max: int) -> None:
    """Whatever the range, and with the bucket in which it begins."""
    end = start + span
    step = step_for(start, end, points_max)
    assert 1 <= steps_in(start, end, step) <= points_max


@pytest.mark.parametrize(
    ("request_", "field", "problem"),
    [
        (QueryMetricsRequest("", "m"), "service_name", "must not be empty"),
        (QueryMetricsRequest("s", "m\n"), "metric_name", "control character"),
        (query(start=NOW, end=NOW), "start", "must be before"),
        (query(start=NOW + DAY), "start", "must be before"),
        (query(end=datetime.min.replace(tzinfo=UTC)), "start", "must be before"),
        (query(start=datetime.min.replace(tzinfo=UTC)), "start", "more than 3660 d"),
        (query(interval=timedelta(0)), "interval", "at least a millisecond"),
        (query(interval=timedelta(seconds=-1)), "interval", "at least a millisecond"),
        (query(interval=timedelta.min), "interval", "at least a millisecond"),
        (query(start=NOW - DAY, interval=timedelta(seconds=1)), "interval", "86401 points.*10s would do"),
        (query(aggregation="mean"), "aggregation", "one of avg, min"),
        (query(labels={"": "x"}), "labels", "must not be empty"),
    ],
)
def test_what_cannot_be_answered_is_refused(request_: QueryMetricsRequest, field: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem) as caught:
        metric_question(request_, NOW, Limits())
    assert caught.value.violations[0].field == field


def test_what_a_refusal_proposes_would_do() -> None:
    start = NOW - 30 * DAY
    step = step_for(start, NOW, POINTS_MAX)
    assert metric_question(query(start=start, interval=step), NOW, Limits()).interval == step


def test_the_longest_interval_is_no_mistake() -> None:
    assert metric_question(query(interval=timedelta.max), NOW, Limits()).interval == timedelta.max


def test_pages() -> None:
    """100 unless said, 1,000 at most; a token goes on where it was given, for the same prefixes alone."""
    sizes = [
        series_question(ListSeriesRequest(page_size=size), EVERYTHING, Limits()).limit
        for size in (0, 7, 5_000)
    ]
    assert sizes == [100, 7, 1_000]
    token = write_token(("ä", "m"), "s", "")
    asked = ListSeriesRequest("s", page_token=token)
    assert series_question(asked, EVERYTHING, Limits()).after == ("ä", "m")
    for bad in (
        ListSeriesRequest("", page_token=token),
        ListSeriesRequest("s", "m", page_token=token),
        ListSeriesRequest("s", page_token=token[:-3]),
        ListSeriesRequest("s", page_token="ü"),
        ListSeriesRequest("s", page_token="A" * 5_000),
        ListSeriesRequest("s", page_token=token + "AAAA"),
    ):
        with pytest.raises(Invalid) as caught:
            series_question(bad, EVERYTHING, Limits())
        assert caught.value.violations[0].field == "page_token"
    with pytest.raises(Invalid, match="page_size"):
        series_question(ListSeriesRequest(page_size=-1), EVERYTHING, Limits())
    with pytest.raises(Invalid, match="service_prefix"):
        series_question(ListSeriesRequest("\0"), EVERYTHING, Limits())


@given(st.text(max_size=255), st.text(max_size=255), st.text(max_size=20))
def test_tokens_come_back(service_name: str, metric_name: str, prefix: str) -> None:
    """Whatever the names."""
    assert read_token(write_token((service_name, metric_name), prefix), prefix) == (service_name, metric_name)


def test_messages_of_a_tail_are_bounded() -> None:
    """By rows and by bytes; their rows are the batch's, with their labels, and what was left out comes first."""
    large = label_set({"l": "x" * 1_000})
    rows = [Row(number, "s", "m", float(number), large.id if number < 600 else 0) for number in range(1_800)]
    messages = list(tail_messages(MetricBatch.of_rows(rows, {large.id: large.document}), 7))
    shown = [metric for message in messages for metric in message.metrics]
    assert [metric.value for metric in shown] == [row.value for row in rows]
    assert shown[0].labels == {"l": "x" * 1_000}
    assert shown[-1].labels == {}
    assert [message.dropped for message in messages] == [7] + [0] * (len(messages) - 1)
    assert max(len(bytes(message)) for message in messages) < 140 * 1024
    assert max(len(message.metrics) for message in messages) == 500
