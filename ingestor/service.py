"""IngestorService: checks metrics, and hands those that keep the rules to the queue, whole or not at all.

The one implementation of the API, whatever the protocol. It acknowledges what the queue has made as safe as the
request asks for; it never stores anything itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence, Sized
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Protocol, TypeAlias, TypeVar

import pyarrow as pa
from ingestor_api.analytics.v1 import (
    AckLevel,
    AnalyticsServiceBase,
    ListSeriesRequest,
    ListSeriesResponse,
    LogMetricRequest,
    LogMetricResponse,
    LogMetricsRequest,
    LogMetricsResponse,
    QueryMetricsRequest,
    QueryMetricsResponse,
    RejectedMetric,
    TailMetricsRequest,
    TailMetricsResponse,
    WriteSeriesRequest,
    WriteSeriesResponse,
)

from ingestor.answers import decoded, encoded, nothing_right, told, with_dead
from ingestor.caller import CALLER
from ingestor.deadline import CALLER_SAYS
from ingestor.errors import (
    Conflict,
    FieldViolation,
    Invalid,
    Later,
    NotStored,
    Overloaded,
    TooFast,
    TooLate,
)
from ingestor.model import Ack, DeadRow, LabelSet, MetricBatch, Request, Row, Rules, label_set
from ingestor.model.columns import Checked, ColumnRules, Rejected, Sifted
from ingestor.model.fingerprint import rows_fingerprint, series_fingerprint
from ingestor.model.labels import NO_LABELS
from ingestor.model.rules import MetricFields, PlainMetric, name_problem
from ingestor.model.series_bound import Claim
from ingestor.pacing import Pacing
from ingestor.permits import permit_writing, permit_writing_column
from ingestor.reading import Reads
from ingestor.series_guard import SeriesGuard
from ingestor.slices import Slices, listed
from ingestor.telemetry import Telemetry
from ingestor.timestamps import from_nanos, microseconds

# A check of more rows than this may take longer than the event loop should stand still: off to a thread.
_INLINE_ROWS_MAX = 5_000
# What is kept of so many takes a millisecond to be packed.
_INLINE_REJECTIONS_MAX = 1_000
_UNLABELED: Mapping[int, str] = MappingProxyType({})
_REQUEST_ID_BYTES_MAX = 128
# A stream that finds no room comes back so soon: the queue's own wait for it lies between.
_ROOM_RETRY_S = 0.1
# What all streams together may have in memory beside the queue while they wait for room: there may be a hundred on
# each connection.
_PATIENT_BYTES_MAX = 64 * 1024**2
# What a row takes as objects.
_TYPED_ROW_BYTES = 1_000
_ACKS: Mapping[int, Ack] = MappingProxyType({ack.value: ack for ack in Ack})

ResultT = TypeVar("ResultT")
SizedT = TypeVar("SizedT", bound=Sized)


_Check: TypeAlias = "Callable[[], Awaitable[Sifted]]"


class Earlier(Protocol):
    """A request that was seen before: what it was, and what becomes of it."""

    @property
    def request(self) -> Request: ...
    async def reached(self, ack: Ack) -> Sequence[DeadRow]: ...


class Queue(Protocol):
    """Where accepted metrics go, and what it can promise. `offer` returns once it has them as safe as `ack`
    says, with the rows that the database refused; it raises Refusal when it took nothing."""

    @property
    def levels(self) -> frozenset[Ack]: ...
    async def offer(
        self, batch: MetricBatch, ack: Ack, request: Request | None = None
    ) -> Sequence[DeadRow]: ...


class Requests(Protocol):
    """Which requests were seen before. `find` claims the name of one that was not, until `release`; it raises
    Conflict for one that asks for something else than the first of its name did."""

    async def find(self, request: Request) -> Earlier | None: ...
    def release(self, request: Request) -> None: ...


@dataclass(frozen=True, slots=True)
class AckPolicy:
    """`default` is what requests wait for that don't say so; a commit they wait for `commit_wait_max_s` seconds at
    most, unless the caller has said how long."""

    default: Ack
    commit_wait_max_s: float


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
        self._queue = queue
        self._requests = requests
        self._rules = rules
        self._column_rules = ColumnRules(rules)
        self._acks = acks
        self._reads = reads
        self._telemetry = telemetry
        self._slices = Slices()
        self._series = series or SeriesGuard(0, dry_run=False, telemetry=telemetry)
        self._clock = clock
        self._patient_bytes = 0
        self._pacing = Pacing()

    def hurry(self) -> None:
        """The server stops: streams don't wait for their keys any more."""
        self._pacing.close()

    async def log_metric(self, message: LogMetricRequest) -> LogMetricResponse:
        """Takes one metric. Raises Invalid, Forbidden, Conflict, TooFast, Overloaded or Unavailable, and then it
        took nothing; NotStored or TooLate while it waits for the commit."""
        permit_writing(lambda: [message.service_name])
        CALLER.get().spend(1)
        ack = self._ack(message.ack, 1)
        request = self._named(message.request_id, 1, lambda: self._rows_fingerprint("LogMetric", [message]))
        if request is None:
            batch, claim = self._valid_row(message)
            del message  # what waits for room is the batch alone, which is what the bounds count
            dead = await self._offer(batch, claim, ack)
        else:
            async with self._once(request, 1) as earlier:
                if earlier is None:
                    dead = await self._offer(*self._valid_row(message), ack, request)
                else:
                    dead = await self._in_time(earlier.reached(ack), ack)
        if dead:
            msg = f"{dead[0].reason} ({dead[0].sqlstate}): it is in dead_letters now"
            raise NotStored(msg)
        return LogMetricResponse(success=True)

    def _valid_row(self, message: LogMetricRequest) -> tuple[MetricBatch, Claim | None]:
        now = self._clock()
        if violations := self._rules.violations(message, now):
            self._count_rejected(1)
            raise Invalid.fields(violations)
        row, labels = _row(message, now)
        batch = MetricBatch.of_row(row, {labels.id: labels.document} if labels else _UNLABELED)
        claim = self._bounded(Checked(batch, []))[1] if self._series.watches else None
        return batch, claim

    async def log_metrics(self, message: LogMetricsRequest) -> LogMetricsResponse:
        """Takes those metrics of a batch that keep the rules, and lists the others. Raises Invalid when none does,
        Forbidden, Conflict, TooFast, Overloaded or Unavailable, and then it took nothing; TooLate while it waits
        for the commit."""
        call, check = self._typed_metrics_call(message)
        del message
        return await self._logged(call, check)

    def _typed_metrics_call(self, message: LogMetricsRequest) -> tuple[_Call, _Check]:
        metrics = message.metrics
        self._check_size(len(metrics))
        permit_writing(lambda: [metric.service_name for metric in metrics])
        fingerprint = partial(self._rows_fingerprint, "LogMetrics", metrics)
        call = self._call(message.ack, message.request_id, len(metrics), fingerprint)
        return call, lambda: _made(self._checked(metrics))

    async def _logged(self, call: _Call, check: _Check) -> LogMetricsResponse:
        accepted, rejected = await self._answered(call, check, "metrics")
        return LogMetricsResponse(accepted=accepted, rejected=rejected)

    def _checked(self, metrics: Sequence[MetricFields]) -> Sifted:
        now = self._clock()
        rows = _Rows(now)
        rejected: list[Rejected] = []
        for position, metric in enumerate(metrics):
            if violations := self._rules.violations(metric, now):
                rejected.append(Rejected(position, violations))
            else:
                rows.add(metric)
        batch = MetricBatch.of_rows(rows.rows, rows.label_sets) if rows.rows else None
        return Sifted(batch, len(rejected), iter(rejected))

    async def log_metrics_columns(self, columns: pa.RecordBatch) -> LogMetricsResponse:
        """`log_metrics` for a request that was decoded to columns: the same answers, without an object a row."""
        call, check = self._metrics_call(columns)
        del columns  # what waits for room is the batch alone, which is what the bounds count
        return await self._logged(call, check)

    def _metrics_call(self, columns: pa.RecordBatch) -> tuple[_Call, _Check]:
        metrics = columns.column("metrics").values
        self._check_size(len(metrics))
        permit_writing_column(metrics)
        fingerprint = partial(self._column_rules.fingerprint, "LogMetrics", metrics)
        call = self._call(*_terms(columns), len(metrics), fingerprint)
        return call, partial(self._checked_once, self._column_rules.sift, [metrics], len(metrics))

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
        series = message.series
        lengths = [(len(each.time_unix_nano), len(each.value)) for each in series]
        self._check_series(lengths)
        permit_writing(lambda: [each.service_name for each in series])
        points = [
            PlainMetric(each.service_name, each.metric_name, value, from_nanos(nanos), each.labels)
            for each in series
            for nanos, value in zip(each.time_unix_nano, each.value, strict=True)
        ]
        call = self._call(
            message.ack,
            message.request_id,
            len(points),
            lambda: series_fingerprint("WriteSeries", series, self._rules.limits),
        )
        del message
        accepted, rejected = await self._answered(call, lambda: _made(self._checked(points)), "points")
        return WriteSeriesResponse(accepted=accepted, rejected=rejected)

    async def write_series_columns(self, columns: pa.RecordBatch) -> WriteSeriesResponse:
        """`write_series` for a request that was decoded to columns: the same answers, without an object a point."""
        call, check = self._series_call(columns)
        del columns
        accepted, rejected = await self._answered(call, check, "points")
        return WriteSeriesResponse(accepted=accepted, rejected=rejected)

    def _series_call(self, columns: pa.RecordBatch) -> tuple[_Call, _Check]:
        series = columns.column("series").values
        lengths = [series.field(name).value_lengths().to_pylist() for name in ("time_unix_nano", "value")]
        self._check_series(list(zip(*lengths, strict=True)))
        points = sum(lengths[0])
        permit_writing_column(series)
        fingerprint = partial(self._column_rules.series_fingerprint, "WriteSeries", series)
        call = self._call(*_terms(columns), points, fingerprint)
        return call, partial(self._checked_once, self._column_rules.sift_series, [series], points)

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

    async def _checked_once(
        self, sift: Callable[[pa.StructArray, datetime], Sifted], columns: list[pa.StructArray], rows: int
    ) -> Sifted:
        """`columns` is emptied: nobody keeps a request that was checked."""
        now = self._clock()
        if rows > _INLINE_ROWS_MAX:
            return await asyncio.to_thread(sift, columns.pop(), now)
        return sift(columns.pop(), now)

    def _call(self, ack: int, request_id: str, rows: int, fingerprint: Callable[[], bytes]) -> _Call:
        return _Call(self._ack(ack, rows), self._named(request_id, rows, fingerprint), rows)

    async def _answered(self, call: _Call, check: _Check, list_name: str) -> tuple[int, list[RejectedMetric]]:
        """Takes what is good of a request's `list_name`, unless that was done before; how many that were, and the
        others with their reasons."""
        await self._spend(call)
        if call.request is None:
            return await self._taken(call, await check(), list_name)
        async with self._once(call.request, call.rows) as earlier:
            if earlier is None:
                return await self._taken(call, await check(), list_name)
            dead = await self._in_time(earlier.reached(call.ack), call.ack)
            rejected = await _aside_if_many(decoded, earlier.request.rejected)
            return earlier.request.accepted - len(dead), with_dead(rejected, dead, call.rows)

    async def _spend(self, call: _Call) -> None:
        """Of what the caller's key allows a second. Raises TooFast, where a stream waits."""
        if call.waits_for_room:
            await self._pacing.spend(CALLER.get(), call.rows, call.size_bytes)
        else:
            CALLER.get().spend(call.rows)

    def _bounded(self, checked: Checked) -> tuple[Checked, Claim | None]:
        """Without rows of too many series, and what new ones took of the bound. Raises TooFast when there are no
        others."""
        try:
            return self._series.within(checked)
        except TooFast:
            self._count_rejected(0 if checked.batch is None else checked.batch.rows)
            raise

    async def _told(
        self, sifted: Sifted, list_name: str
    ) -> tuple[MetricBatch, Claim | None, list[RejectedMetric]]:
        claim = None
        async with self._slices.place(sifted.bad):
            checked = Checked(sifted.batch, await listed(sifted.explained))
            if self._series.watches:
                checked, claim = self._bounded(checked)
            if checked.batch is None:
                self._count_rejected(len(checked.rejected))
                raise nothing_right(checked.rejected, list_name)
            return checked.batch, claim, await listed(told(checked.rejected))

    async def _taken(self, call: _Call, sifted: Sifted, list_name: str) -> tuple[int, list[RejectedMetric]]:
        batch, claim, rejected = await self._told(sifted, list_name)
        del sifted
        accepted, request = batch.rows, call.request
        if request is not None:
            request = request._replace(accepted=accepted, rejected=await _aside_if_many(encoded, rejected))
        dead = await self._offer(batch, claim, call.ack, request, until_taken=call.waits_for_room)
        self._count_rejected(len(rejected))
        return accepted - len(dead), with_dead(rejected, dead, call.rows)

    def _check_series(self, lengths: Sequence[tuple[int, int]]) -> None:
        for number, (times, values) in enumerate(lengths):
            if times != values:
                problem = f"has {values} values for {times} times"
                raise Invalid.fields([FieldViolation(f"series[{number}].value", problem)])
        self._check_size(sum(times for times, _ in lengths), "series", "points")

    def _check_size(self, rows: int, field_name: str = "metrics", what: str = "metrics") -> None:
        rows_max = self._rules.limits.rows_max
        if rows == 0:
            problem = "must not be empty" if field_name == what else f"must have {what}"
            raise Invalid.fields([FieldViolation(field_name, problem)])
        if rows > rows_max:
            self._count_rejected(rows)
            problem = f"has {rows} {what}, {rows_max} at most: send smaller batches"
            raise Invalid.fields([FieldViolation(field_name, problem)])

    async def _offer(
        self,
        batch: MetricBatch,
        claim: Claim | None,
        ack: Ack,
        request: Request | None = None,
        *,
        until_taken: bool = False,
    ) -> Sequence[DeadRow]:
        try:
            if until_taken:
                return await self._offer_until_taken(batch, ack, request)
            return await self._in_time(self._queue.offer(batch, ack, request), ack)
        except Later:
            self._telemetry.refused.inc(batch.rows)
            self._series.give_back(claim)
            raise
        except Invalid:
            self._count_rejected(batch.rows)
            self._series.give_back(claim)
            raise

    async def _offer_until_taken(
        self, batch: MetricBatch, ack: Ack, request: Request | None
    ) -> Sequence[DeadRow]:
        """A stream is pushed back, not refused, unless too many of them wait. Raises Overloaded then."""
        held = 0
        try:
            while True:
                try:
                    return await self._in_time(self._queue.offer(batch, ack, request), ack)
                except Overloaded:
                    if not held:
                        if self._patient_bytes + batch.size_bytes > _PATIENT_BYTES_MAX:
                            raise
                        held = batch.size_bytes
                        self._patient_bytes += held
                await asyncio.sleep(_ROOM_RETRY_S)
        finally:
            self._patient_bytes -= held

    async def _in_time(self, waiting: Awaitable[Sequence[DeadRow]], ack: Ack) -> Sequence[DeadRow]:
        """Waits for this acknowledgement, for a commit no longer than is promised. Raises TooLate."""
        if ack is not Ack.COMMITTED or CALLER_SAYS.get():
            return await waiting
        try:
            async with asyncio.timeout(self._acks.commit_wait_max_s):
                return await waiting
        except TimeoutError:
            msg = (
                f"not committed within {self._acks.commit_wait_max_s:g} s (COMMIT_WAIT_MAX), but it may still be:"
                " to be sure, send the same request with the same request_id again"
            )
            raise TooLate(msg) from None

    @asynccontextmanager
    async def _once(self, request: Request, rows: int) -> AsyncIterator[Earlier | None]:
        """What was taken under this name before; None when this is the first, for which the name is kept."""
        try:
            earlier = await self._requests.find(request)
        except Conflict:
            self._count_rejected(rows)
            raise
        if earlier is not None:
            self._telemetry.received.inc(rows)
            self._telemetry.duplicates.inc(rows)
        try:
            yield earlier
        finally:
            if earlier is None:
                self._requests.release(request)

    def _ack(self, level: int, rows: int) -> Ack:
        """What a request waits for that asks for this AckLevel. Raises Invalid for one that we can't give."""
        if level == AckLevel.UNSPECIFIED:
            return self._acks.default
        ack = _ACKS.get(level)
        if ack is not None and ack in self._queue.levels:
            return ack
        self._count_rejected(rows)
        offered = " and ".join(each.name for each in sorted(self._queue.levels))
        problem = (
            f"is no AckLevel: {int(level)}"
            if ack is None
            else f"can't be {ack.name}: this server offers {offered}"
        )
        raise Invalid.fields([FieldViolation("ack", problem)])

    def _named(self, request_id: str, rows: int, fingerprint: Callable[[], bytes]) -> Request | None:
        """The request under its name; None without one. Raises Invalid for a bad name."""
        if not request_id:
            return None
        if problem := name_problem(request_id, _REQUEST_ID_BYTES_MAX):
            self._count_rejected(rows)
            raise Invalid.fields([FieldViolation("request_id", problem)])
        return Request(CALLER.get().id, request_id, fingerprint(), rows)

    def _rows_fingerprint(self, method: str, metrics: Sequence[MetricFields]) -> bytes:
        return rows_fingerprint(method, metrics, self._rules.limits)

    def _count_rejected(self, rows: int) -> None:
        # What is taken is counted as received by the queue, in the moment in which it takes it.
        if rows:
            self._telemetry.received.inc(rows)
            self._telemetry.rejected.inc(rows)


@dataclass(slots=True)
class _Rows:
    """Collects valid metrics as rows; those without a time get `now`."""

    now: datetime
    rows: list[Row] = field(default_factory=list)
    label_sets: dict[int, str] = field(default_factory=dict)

    def add(self, metric: MetricFields) -> None:
        """One metric that keeps the rules."""
        row, labels = _row(metric, self.now)
        self.rows.append(row)
        if labels is not None:
            self.label_sets[labels.id] = labels.document


def _row(metric: MetricFields, now: datetime) -> tuple[Row, LabelSet | None]:
    assert metric.value is not None
    labels = label_set(metric.labels) if metric.labels else None
    label_set_id = NO_LABELS if labels is None else labels.id
    time_us = microseconds(metric.time or now)
    return Row(time_us, metric.service_name, metric.metric_name, metric.value, label_set_id), labels


@dataclass(frozen=True, slots=True)
class _Call:
    """What a bulk request waits for, its name if it has one, and how many rows it has, good and bad. Without
    `waits_for_room` it is refused when there is none within the admission wait."""

    ack: Ack
    request: Request | None
    rows: int
    waits_for_room: bool = False
    size_bytes: int = 0

    def patient(self, size_bytes: int) -> _Call:
        """The same, but it waits for room, and for its key, with so many bytes in hand."""
        return replace(self, waits_for_room=True, size_bytes=size_bytes)


def _terms(columns: pa.RecordBatch) -> tuple[int, str]:
    """A request's AckLevel and request_id."""
    return columns.column("ack")[0].as_py(), columns.column("request_id")[0].as_py()


async def _made(sifted: Sifted) -> Sifted:
    return sifted


async def _aside_if_many(work: Callable[[SizedT], ResultT], items: SizedT) -> ResultT:
    """`work(items)`, in a thread when there are many of them."""
    if len(items) > _INLINE_REJECTIONS_MAX:
        return await asyncio.to_thread(work, items)
    return work(items)
