"""Makes questions of requests: fills in what they leave open, and refuses what can't be answered, with the field.

Pure; who may ask it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import get_args

from ingestor_api.analytics.v1 import ListSeriesRequest, QueryMetricsRequest

from ingestor.errors import FieldViolation, Invalid
from ingestor.model import Limits
from ingestor.model.questions import Aggregation, MetricQuestion, SeriesQuestion
from ingestor.model.rules import label_problems, name_problem
from ingestor.model.steps import in_words, step_for, steps_in
from ingestor.reading.tokens import read_token

POINTS_MAX = 11_000
"""As many points as an answer may have: it is made and sent as one message."""

_POINTS_WANTED = 300
_RANGE_MAX = timedelta(days=3_660)
_INTERVAL_MIN = timedelta(milliseconds=1)
_RANGE_DEFAULT = timedelta(hours=1)
_AGGREGATIONS: dict[str, Aggregation] = {name: name for name in get_args(Aggregation)}
_PAGE_DEFAULT, _PAGE_MAX = 100, 1_000
_EARLIEST = datetime.min.replace(tzinfo=UTC)


def metric_question(request: QueryMetricsRequest, now: datetime, limits: Limits) -> MetricQuestion:
    """What is asked at this moment. Raises Invalid, with every field that is wrong."""
    end = request.end or now
    start = request.start or (end - _RANGE_DEFAULT if end - _EARLIEST > _RANGE_DEFAULT else _EARLIEST)
    violations = list(_violations(request, start, end, limits))
    if violations:
        raise Invalid.fields(violations)
    interval = request.interval
    if interval is None:
        interval = step_for(start, end, _POINTS_WANTED)
    elif (points := steps_in(start, end, interval)) > POINTS_MAX:
        would_do = in_words(step_for(start, end, POINTS_MAX))
        problem = f"gives {points} points, {POINTS_MAX} at most: {would_do} would do for this range"
        raise Invalid.fields([FieldViolation("interval", problem)])
    return MetricQuestion(
        request.service_name,
        request.metric_name,
        start,
        end,
        interval,
        _AGGREGATIONS[request.aggregation or "avg"],
        request.labels,
    )


def _violations(
    request: QueryMetricsRequest, start: datetime, end: datetime, limits: Limits
) -> Iterator[FieldViolation]:
    if problem := name_problem(request.service_name, limits.name_bytes_max):
        yield FieldViolation("service_name", problem)
    if problem := name_problem(request.metric_name, limits.name_bytes_max):
        yield FieldViolation("metric_name", problem)
    if start >= end:
        yield FieldViolation("start", "must be before `end`")
    elif end - start > _RANGE_MAX:
        yield FieldViolation(
            "start", f"is more than {_RANGE_MAX.days} d before `end`: ask for a shorter range"
        )
    if request.interval is not None and request.interval < _INTERVAL_MIN:
        yield FieldViolation("interval", "must be at least a millisecond")
    if request.aggregation and request.aggregation not in _AGGREGATIONS:
        yield FieldViolation("aggregation", f"must be one of {', '.join(_AGGREGATIONS)}")
    yield from label_problems(request.labels, limits)


def series_question(request: ListSeriesRequest, readable: tuple[str, ...], limits: Limits) -> SeriesQuestion:
    """What is asked by somebody who may see these services. Raises Invalid likewise."""
    violations = [
        FieldViolation(field, problem)
        for field, prefix in (
            ("service_prefix", request.service_prefix),
            ("metric_prefix", request.metric_prefix),
        )
        if prefix and (problem := name_problem(prefix, limits.name_bytes_max))
    ]
    if request.page_size < 0:
        violations.append(FieldViolation("page_size", "must not be negative"))
    if violations:
        raise Invalid.fields(violations)
    return SeriesQuestion(
        request.service_prefix,
        request.metric_prefix,
        after=read_token(request.page_token, request.service_prefix, request.metric_prefix),
        limit=min(request.page_size or _PAGE_DEFAULT, _PAGE_MAX),
        readable=readable,
    )
