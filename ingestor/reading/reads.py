"""Answers the rpcs that read, whatever the protocol: by a reader of what is stored, and a tail of what is being
stored.

Here is decided what a caller may see; what is a good question `questions` says, how it is answered the ports know.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol, cast

from ingestor_api.analytics.v1 import (
    ListSeriesRequest,
    ListSeriesResponse,
    Point,
    QueryMetricsRequest,
    QueryMetricsResponse,
    SeriesInfo,
    TailMetricsRequest,
    TailMetricsResponse,
)

from ingestor.caller import CALLER
from ingestor.errors import FieldViolation, Invalid
from ingestor.model import Limits, MetricBatch
from ingestor.model.questions import MetricPoints, MetricQuestion, SeriesQuestion, StoredSeries
from ingestor.model.rules import name_problem
from ingestor.permits import permit_reading
from ingestor.reading.messages import tail_messages
from ingestor.reading.points import told
from ingestor.reading.questions import metric_question, series_question
from ingestor.reading.tokens import write_token


class Reader(Protocol):
    """What is stored. Raises TooSlow, Overloaded or Unavailable, and Invalid where only the data tells that a
    question has no answer."""

    async def points(self, question: MetricQuestion) -> MetricPoints: ...
    async def series(self, question: SeriesQuestion) -> Sequence[StoredSeries]: ...


class Watch(Protocol):
    """What is being stored, as one reader sees it. `seen` waits for rows, though not for ever: it may return none;
    with them it tells how many were left out before them."""

    async def seen(self) -> tuple[MetricBatch | None, int]: ...


class Tail(Protocol):
    """Gives watches; empty names stand for all. Raises Overloaded."""

    def watch(
        self, service_name: str, metric_name: str, readable: tuple[str, ...]
    ) -> AbstractContextManager[Watch]: ...


class Reads:
    """The rpcs that read. `clock` gives the present moment in UTC."""

    def __init__(
        self,
        reader: Reader,
        tail: Tail,
        limits: Limits,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reader = reader
        self._tail = tail
        self._limits = limits
        self._clock = clock

    async def query_metrics(self, request: QueryMetricsRequest) -> QueryMetricsResponse:
        """One metric over time. Raises Forbidden."""
        permit_reading(request.service_name)
        question = metric_question(request, self._clock(), self._limits)
        points = await self._reader.points(question)
        # A list as far as anybody reads it.
        return QueryMetricsResponse(cast("list[Point]", told(points)), question.interval)

    async def list_series(self, request: ListSeriesRequest) -> ListSeriesResponse:
        """One page of what is there."""
        question = series_question(request, self._readable(), self._limits)
        # One more tells whether there is a next page.
        found = await self._reader.series(replace(question, limit=question.limit + 1))
        page, token = found[: question.limit], ""
        if len(found) > len(page):
            token = write_token(page[-1][:2], question.service_prefix, question.metric_prefix)
        return ListSeriesResponse([SeriesInfo(*series) for series in page], token)

    async def tail_metrics(self, request: TailMetricsRequest) -> AsyncGenerator[TailMetricsResponse, None]:
        """What is committed from now on. Raises Forbidden."""
        if request.service_name:
            permit_reading(request.service_name)
        self._check_filters(request)
        with self._tail.watch(request.service_name, request.metric_name, self._readable()) as watch:
            yield TailMetricsResponse()
            while True:
                batch, dropped = await watch.seen()
                if batch is None:
                    yield TailMetricsResponse(dropped=dropped)
                else:
                    for message in tail_messages(batch, dropped):
                        yield message
                del batch  # nothing is kept while nothing comes

    def _readable(self) -> tuple[str, ...]:
        """The prefixes of services that the caller may see."""
        return CALLER.get().read_prefixes

    def _check_filters(self, request: TailMetricsRequest) -> None:
        names = (("service_name", request.service_name), ("metric_name", request.metric_name))
        violations = [
            FieldViolation(field, problem)
            for field, name in names
            if name and (problem := name_problem(name, self._limits.name_bytes_max))
        ]
        if violations:
            raise Invalid.fields(violations)
