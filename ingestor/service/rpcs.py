"""The rpcs, as both protocols call them: each asks whether the caller may, what is asked for and whether it is
right, and hands that on.

It decides nothing that its parts decide, and answers nothing that is read, which `reading` does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias

import pyarrow as pa
from ingestor_api.analytics.v1 import (
    AnalyticsServiceBase,
    ListSeriesRequest,
    ListSeriesResponse,
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    QueryMetricsRequest,
    QueryMetricsResponse,
    TailMetricsRequest,
    TailMetricsResponse,
    WriteSeriesRequest,
    WriteSeriesResponse,
)

from ingestor.caller import CALLER
from ingestor.errors import NotStored
from ingestor.model import Rules
from ingestor.model.columns import Sifted
from ingestor.model.fingerprint import rows_fingerprint, series_fingerprint
from ingestor.model.rules import PlainMetric
from ingestor.permits import permit_writing, permit_writing_column, permit_writing_one
from ingestor.reading import Reads
from ingestor.service.checks import Checks
from ingestor.service.rejections import in_answer
from ingestor.service.series_guard import SeriesGuard
from ingestor.service.taking import Requests, Taking
from ingestor.service.terms import AckPolicy, Call, Terms, asked_in
from ingestor.service.waiting import Queue, Waiting
from ingestor.telemetry import Telemetry
from ingestor.timestamps import from_nanos

# What a row takes as objects.
_TYPED_ROW_BYTES = 1_000

_Check: TypeAlias = "Callable[[], Awaitable[Sifted]]"


class IngestorService(AnalyticsServiceBase):
    """The service that gRPC and HTTP call. `clock` gives the present moment in UTC."""

    def __init__(
        self,
        queue: Queue,
        requests: Requests,
        rules: Rules,
        *,
        acks: AckPolicy,
        reads: Reads,
        telemetry: Telemetry,
        series: SeriesGuard | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reads = reads
        self._limits = rules.limits
        self._terms = Terms(acks.default, queue.levels, telemetry)
        self._checks = Checks(rules, clock, telemetry)
        self._waiting = Waiting(queue, acks.commit_wait_max_s)
        series = series or SeriesGuard(0, dry_run=False, telemetry=telemetry)
        self._taking = Taking(requests, self._waiting, series, telemetry)

    def hurry(self) -> None:
        """The server stops: streams don't wait for their keys any more."""
        self._waiting.hurry()

    async def log_metric(self, message: LogMetricRequest) -> LogMetricResponse:
        """Takes one metric. Raises Invalid, Forbidden, Conflict, TooFast, Overloaded or Unavailable, and then it
        took nothing; NotStored or TooLate while it waits for the commit."""
        permit_writing_one(message.service_name)
        CALLER.get().spend(1)
        ack = self._terms.ack(message.ack, 1)
        request = self._terms.named(
            message.request_id, 1, lambda: rows_fingerprint("LogMetric", [message], self._limits)
        )
        taking = self._taking
        if request is None:
            batch = self._checks.one(message)
            del message  # what waits for room is the batch alone, which is what the bounds count
            dead = await taking.offer(batch, taking.claim(batch), ack)
        else:
            async with taking.once(request, 1) as earlier:
                if earlier is None:
                    batch = self._checks.one(message)
                    dead = await taking.offer(batch, taking.claim(batch), ack, request)
                else:
                    dead = await taking.reached(earlier, ack)
        if dead:
            msg = f"{dead[0].reason} ({dead[0].sqlstate}): it is in dead_letters now"
            raise NotStored(msg)
        return LogMetricResponse(success=True)

    async def log_metrics(self, message: LogMetricsRequest) -> LogMetricsResponse:
        """Takes those metrics of a batch that keep the rules, and lists the others. Raises Invalid when none does,
        Forbidden, Conflict, TooFast, Overloaded or Unavailable, and then it took nothing; TooLate while it waits
        for the commit."""
        call, check = self._typed_metrics_call(message)
        del message
        return await self._logged(call, check)

    async def log_metrics_columns(self, columns: pa.RecordBatch) -> LogMetricsResponse:
        """`log_metrics` for a request that was decoded to columns: the same answers, without an object a row."""
        call, check = self._metrics_call(columns)
        del columns  # what waits for room is the batch alone, which is what the bounds count
        return await self._logged(call, check)

    async def stream_metrics(
        self, messages: AsyncIterator[LogMetricsRequest]
    ) -> AsyncGenerator[LogMetricsResponse, None]:
        """Answers each request as `log_metrics` does, before the next is read. One that finds no room waits for it,
        however long, unless too much waits so already; otherwise raises what `log_metrics` raises, and takes
        nothing more."""
        async for message in messages:
            call, check = self._typed_metrics_call(message)
            del message
            yield await self._logged(call.patient(call.rows * _TYPED_ROW_BYTES), check)

    async def stream_metrics_columns(
        self, messages: AsyncIterator[pa.RecordBatch]
    ) -> AsyncGenerator[LogMetricsResponse, None]:
        """`stream_metrics` for requests that were decoded to columns, likewise."""
        async for columns in messages:
            call, check = self._metrics_call(columns)
            call = call.patient(columns.nbytes)
            del columns
            yield await self._logged(call, check)

    async def write_series(self, message: WriteSeriesRequest) -> WriteSeriesResponse:
        """Takes those points of some series that keep the rules, and lists the others. Raises Invalid when none
        does or a series' lists differ in length, Forbidden, Conflict, TooFast, Overloaded or Unavailable, and
        then it took nothing; TooLate while it waits for the commit."""
        call, check = self._typed_series_call(message)
        del message
        accepted, rejected = await self._taking.bulk(call, check, "points")
        return WriteSeriesResponse(accepted=accepted, rejected=in_answer(rejected))

    async def write_series_columns(self, columns: pa.RecordBatch) -> WriteSeriesResponse:
        """`write_series` for a request that was decoded to columns: the same answers, without an object a point."""
        call, check = self._series_call(columns)
        del columns
        accepted, rejected = await self._taking.bulk(call, check, "points")
        return WriteSeriesResponse(accepted=accepted, rejected=in_answer(rejected))

    async def query_metrics(self, message: QueryMetricsRequest) -> QueryMetricsResponse:
        """Reads one metric over time. Raises Invalid, TooSlow, Overloaded or Unavailable."""
        return await self._reads.query_metrics(message)

    async def list_series(self, message: ListSeriesRequest) -> ListSeriesResponse:
        """Lists what is stored. Raises Invalid, TooSlow, Overloaded or Unavailable."""
        return await self._reads.list_series(message)

    async def tail_metrics(self, message: TailMetricsRequest) -> AsyncGenerator[TailMetricsResponse, None]:
        """Shows what is committed from now on. Raises Invalid or Overloaded."""
        async with aclosing(self._reads.tail_metrics(message)) as messages:
            async for each in messages:
                yield each

    async def _logged(self, call: Call, check: _Check) -> LogMetricsResponse:
        accepted, rejected = await self._taking.bulk(call, check, "metrics")
        return LogMetricsResponse(accepted=accepted, rejected=in_answer(rejected))

    def _typed_metrics_call(self, message: LogMetricsRequest) -> tuple[Call, _Check]:
        metrics = message.metrics
        self._checks.check_size(len(metrics))
        permit_writing(lambda: [metric.service_name for metric in metrics])
        fingerprint = partial(rows_fingerprint, "LogMetrics", metrics, self._limits)
        call = self._terms.call(message.ack, message.request_id, len(metrics), fingerprint)
        return call, partial(self._checks.many, metrics)

    def _metrics_call(self, columns: pa.RecordBatch) -> tuple[Call, _Check]:
        metrics = columns.column("metrics").values
        self._checks.check_size(len(metrics))
        permit_writing_column(metrics)
        rules = self._checks.columns
        fingerprint = partial(rules.fingerprint, "LogMetrics", metrics)
        call = self._terms.call(*asked_in(columns), len(metrics), fingerprint)
        return call, partial(self._checks.columnar, rules.sift, [metrics], len(metrics))

    def _typed_series_call(self, message: WriteSeriesRequest) -> tuple[Call, _Check]:
        series = message.series
        self._checks.check_series([(len(each.time_unix_nano), len(each.value)) for each in series])
        permit_writing(lambda: [each.service_name for each in series])
        points = [
            PlainMetric(each.service_name, each.metric_name, value, from_nanos(nanos), each.labels)
            for each in series
            for nanos, value in zip(each.time_unix_nano, each.value, strict=True)
        ]
        fingerprint = partial(series_fingerprint, "WriteSeries", series, self._limits)
        call = self._terms.call(message.ack, message.request_id, len(points), fingerprint)
        return call, partial(self._checks.many, points)

    def _series_call(self, columns: pa.RecordBatch) -> tuple[Call, _Check]:
        series = columns.column("series").values
        lengths = [series.field(name).value_lengths().to_pylist() for name in ("time_unix_nano", "value")]
        self._checks.check_series(list(zip(*lengths, strict=True)))
        points = sum(lengths[0])
        permit_writing_column(series)
        rules = self._checks.columns
        fingerprint = partial(rules.series_fingerprint, "WriteSeries", series)
        call = self._terms.call(*asked_in(columns), points, fingerprint)
        return call, partial(self._checks.columnar, rules.sift_series, [series], points)
