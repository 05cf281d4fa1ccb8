"""What the service promises beyond checking metrics: acknowledgements, names of requests, and rows that the
database refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from ingestor_api.analytics.v1 import (
    AckLevel,
    LogMetricRequest,
    LogMetricsRequest,
    Metric,
    RejectedMetric,
)

from ingestor.deadline import CALLER_SAYS
from ingestor.errors import Conflict, Invalid, NotStored, Overloaded, TooLate
from ingestor.journal import MemoryJournal, QueueLimits, RequestIds
from ingestor.model import Ack, DeadRow, Limits, MetricBatch, Outcome, Request
from ingestor.service import SeriesGuard, taking
from ingestor.telemetry import Telemetry
from tests.recorder import Recorder, service_on

MANY = 10**9
NOW = datetime(2026, 1, 2, tzinfo=UTC)
GOOD = Metric("s", "m", 1.0)
BAD = Metric("s", "m")


class MemoryOnly(Recorder):
    levels = frozenset({Ack.QUEUED, Ack.COMMITTED})


class Silent(Recorder):
    """Never says that anything is committed."""

    async def offer(self, batch: MetricBatch, ack: Ack, request: Request | None = None) -> Sequence[DeadRow]:
        await super().offer(batch, ack, request)
        await asyncio.Event().wait()
        return ()


class Full(Recorder):
    async def offer(self, batch: MetricBatch, ack: Ack, request: Request | None = None) -> Sequence[DeadRow]:
        raise Overloaded("full", 1.0)


def counts(telemetry: Telemetry, *names: str) -> list[float | None]:
    return [telemetry.registry.get_sample_value(f"ingestor_metrics_{name}_total") for name in names]


@pytest.mark.parametrize(
    ("level", "ack"),
    [
        (AckLevel.UNSPECIFIED, Ack.JOURNALED),
        (AckLevel.QUEUED, Ack.QUEUED),
        (AckLevel.COMMITTED, Ack.COMMITTED),
    ],
)
async def test_requests_wait_for_what_they_ask_for(level: AckLevel, ack: Ack) -> None:
    """Or for the server's default."""
    queue = Recorder()
    service = service_on(queue, Limits())
    await service.log_metric(LogMetricRequest("s", "m", 1.0, ack=level))
    await service.log_metrics(LogMetricsRequest([GOOD], ack=level))
    assert queue.terms == [(ack, None), (ack, None)]


@pytest.mark.parametrize(
    ("level", "problem"),
    [(AckLevel.JOURNALED, "offers QUEUED and COMMITTED"), (AckLevel(7), "no AckLevel: 7")],
)
async def test_a_level_that_cannot_be_given_is_invalid(level: AckLevel, problem: str) -> None:
    """Never silently a lower one; the field is named, nothing is taken, and the books balance."""
    queue, telemetry = MemoryOnly(), Telemetry()
    service = service_on(queue, Limits(), telemetry=telemetry)
    for call in (
        service.log_metric(LogMetricRequest("s", "m", 1.0, ack=level)),
        service.log_metrics(LogMetricsRequest([GOOD, GOOD], ack=level)),
    ):
        with pytest.raises(Invalid, match=problem) as caught:
            await call
        assert caught.value.violations[0].field == "ack"
    assert queue.batches == []
    assert counts(telemetry, "received", "rejected") == [3, 3]


@pytest.mark.parametrize("name", ["x" * 129, "ü" * 65, "a\nb", "\0"])
async def test_a_bad_request_id_is_named(name: str) -> None:
    """At most 128 bytes, and no control characters."""
    with pytest.raises(Invalid) as caught:
        await service_on(Recorder(), Limits()).log_metric(LogMetricRequest("s", "m", 1.0, request_id=name))
    assert caught.value.violations[0].field == "request_id"


async def test_a_commit_is_waited_for_in_bounds() -> None:
    """Without a deadline COMMIT_WAIT_MAX, then TooLate; with one of the caller's, as long as that."""
    service = service_on(Silent(), Limits(), commit_wait_max_s=0.02)
    request = LogMetricRequest("s", "m", 1.0, ack=AckLevel.COMMITTED)
    with pytest.raises(TooLate, match="same request_id"):
        await service.log_metric(request)
    CALLER_SAYS.set(True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(service.log_metric(request), 0.2)


async def test_rows_that_the_database_refused_are_told_by_their_place_in_the_request() -> None:
    """Which counts the rows that broke a rule, too."""
    queue = Recorder([DeadRow(0, "23514", "too high"), DeadRow(2, "23514", "too high")])
    service = service_on(queue, Limits())
    answer = await service.log_metrics(
        LogMetricsRequest([BAD, GOOD, GOOD, BAD, GOOD], ack=AckLevel.COMMITTED)
    )
    assert answer.accepted == 1
    assert [each.index for each in answer.rejected] == [0, 1, 3, 4]
    assert answer.rejected[1].reason == "too high (23514): it is in dead_letters now"
    with pytest.raises(NotStored, match="too high"):
        await service.log_metric(LogMetricRequest("s", "m", 1.0, ack=AckLevel.COMMITTED))
    assert (await service.log_metric(LogMetricRequest("s", "m", 1.0))).success


def make() -> tuple[MemoryJournal, Any, Telemetry]:
    """A service on a real journal, which nobody empties."""
    telemetry, ids = Telemetry(), RequestIds()
    journal = MemoryJournal(QueueLimits(MANY, MANY, MANY, 0.0), ids, on_taken=telemetry.received.inc)
    service = service_on(
        journal,  # type: ignore[arg-type] # it needs no Recorder, only what a Recorder is
        Limits(),
        lambda: NOW,
        requests=ids,
        telemetry=telemetry,
    )
    return journal, service, telemetry


def named(*metrics: Metric, name: str = "r", ack: AckLevel = AckLevel.QUEUED) -> LogMetricsRequest:
    return LogMetricsRequest(list(metrics), ack=ack, request_id=name)


async def test_a_repetition_is_answered_as_the_first_and_taken_once() -> None:
    """Rejections and all; the books tell of duplicates."""
    journal, service, telemetry = make()
    first = await service.log_metrics(named(GOOD, BAD, GOOD))
    assert (first.accepted, [each.index for each in first.rejected]) == (2, [1])
    assert await service.log_metrics(named(GOOD, BAD, GOOD)) == first
    assert journal.held_rows == 2
    assert counts(telemetry, "received", "rejected", "duplicates") == [6, 1, 3]


async def test_a_repetition_waits_for_the_commit_of_the_first() -> None:
    """And hears of its rows that the database refused, as the first would have."""
    journal, service, _ = make()
    await service.log_metrics(named(BAD, GOOD))
    again = asyncio.create_task(service.log_metrics(named(BAD, GOOD, ack=AckLevel.COMMITTED)))
    entries = await journal.read(MANY)
    await asyncio.sleep(0)
    assert not again.done()
    await journal.settle(entries, Outcome(dead=[DeadRow(0, "22000", "bad")]))
    answer = await again
    assert (answer.accepted, [each.index for each in answer.rejected]) == (0, [0, 1])


async def test_a_unary_request_is_repeated_likewise() -> None:
    """One row, whatever its time: the server's own is no part of what was asked for."""
    journal, service, _ = make()
    request = LogMetricRequest(
        "s", "m", 1.0, ack=AckLevel.QUEUED, request_id="r", labels={"a": "b", "c": "d"}
    )
    assert (await service.log_metric(request)).success
    request.labels = {"c": "d", "a": "b"}
    assert (await service.log_metric(request)).success
    assert journal.held_rows == 1


@pytest.mark.parametrize(
    "other",
    [
        LogMetricRequest("s", "m", 2.0),
        LogMetricRequest("s", "m", 1.0, NOW),
        LogMetricRequest("s", "m", 1.0, labels={"a": "b"}),
        LogMetricRequest("sm", "", 1.0),
    ],
)
async def test_another_payload_under_the_same_name_is_a_conflict(other: LogMetricRequest) -> None:
    """Nothing of it is taken."""
    journal, service, telemetry = make()
    await service.log_metric(LogMetricRequest("s", "m", 1.0, ack=AckLevel.QUEUED, request_id="r"))
    other.request_id, other.ack = "r", AckLevel.QUEUED
    with pytest.raises(Conflict):
        await service.log_metric(other)
    with pytest.raises(Conflict):
        await service.log_metrics(named(Metric("s", "m", 1.0)))
    assert journal.held_rows == 1
    assert counts(telemetry, "received", "rejected") == [3, 2]


async def test_what_was_not_taken_is_not_remembered() -> None:
    """A name is free again after a refusal, and after a request of which nothing was good."""
    _, service, _ = make()
    with pytest.raises(Invalid):
        await service.log_metrics(named(BAD))
    assert (await service.log_metrics(named(GOOD))).accepted == 1
    ids = RequestIds()
    full = service_on(Full(), Limits(), requests=ids)
    with pytest.raises(Overloaded):
        await full.log_metrics(named(GOOD))
    assert (await service_on(Recorder(), Limits(), requests=ids).log_metrics(named(GOOD, GOOD))).accepted == 2


async def test_many_rejections_are_repeated_in_full() -> None:
    """However many a request had."""
    _, service, _ = make()
    request = named(*[BAD] * 3_000, GOOD)
    first = await service.log_metrics(request)
    assert len(first.rejected) == 3_000
    assert isinstance(first.rejected[0], RejectedMetric)
    assert await service.log_metrics(request) == first


@pytest.mark.parametrize("where", ["kept", "encoded"])
async def test_a_call_that_is_given_up_before_its_offer_uses_up_no_series(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While what it is told of bad rows is worked on, which may take many turns and a thread."""
    reached, telemetry = asyncio.Event(), Telemetry()

    async def waits(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    queue, guard = Recorder(), SeriesGuard(1, dry_run=False, telemetry=telemetry)
    service = service_on(queue, Limits(), series=guard)
    with monkeypatch.context() as slow:
        slow.setattr(taking, {"kept": "kept", "encoded": "_aside_if_many"}[where], waits)
        call = asyncio.create_task(service.log_metrics(named(GOOD, BAD)))
        await reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert queue.batches == []
    assert (await service.log_metrics(LogMetricsRequest([Metric("s", "other", 1.0)]))).accepted == 1
