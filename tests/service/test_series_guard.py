"""SERIES_PER_HOUR_MAX, over both protocols and every way of writing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
    LogMetricsRequest,
    Metric,
    Series,
    WriteSeriesRequest,
)
from loguru import logger

from ingestor.access import KeysFile
from tests.access.kit import make
from tests.gateway import Gateway, gateway
from tests.transport.grpc.kit import give_room, without_room

REASON = "is of a new series, and 2 were written within an hour: send fewer distinct names and labels"


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []
    ours = logger.add(found.append, level="WARNING", format="{message} {extra}")
    yield found
    logger.remove(ours)


async def stored(running: Gateway) -> list[str]:
    while running.count("ingestor_metrics_pending"):
        await asyncio.sleep(0.01)
    return sorted(name for _, _, name, *_ in await running.rows())


def limited(running: Gateway, key: str = "") -> float | None:
    return running.app.telemetry.registry.get_sample_value("ingestor_series_limited_total", {"key": key})


async def test_new_series_beyond_the_bound_are_rejected(database_url: str, warnings: list[str]) -> None:
    """By index and reason, beside what is bad otherwise; known ones go on; a request of new ones alone may come
    later. A repetition is told the same."""
    async with gateway(database_url, series_per_hour_max=2) as running:
        stub = running.stub
        await stub.log_metric(LogMetricRequest("s", "a", 1.0, labels={"x": "y"}))
        rows = [
            Metric("s", "bad"),
            Metric("s", "a", 1.0, labels={"x": "y"}),
            Metric("s", "b", 2.0),
            Metric("s", "new", 3.0, labels={"secret": "z"}),
            Metric("s", "b", 4.0),
        ]
        # Which of several new ones find room is not said: one at a time.
        await stub.log_metrics(LogMetricsRequest(rows[2:3]))
        for _ in range(2):
            answer = await stub.log_metrics(LogMetricsRequest(rows, request_id="r"))
            told = [(each.index, each.reason) for each in answer.rejected]
            assert (answer.accepted, told) == (3, [(0, "value: is required"), (3, REASON)])
        now = time.time_ns()
        series = [Series("s", "more", {}, [now, now], [1.0, 2.0]), Series("s", "b", {}, [now], [3.0])]
        points = await stub.write_series(WriteSeriesRequest(series))
        assert (points.accepted, [each.index for each in points.rejected]) == (1, [0, 1])
        status, told_json = await running.post(
            "/v1/metrics:batch",
            {"metrics": [{"serviceName": "s", "metricName": name, "value": 5} for name in ("c", "b")]},
        )
        assert (status, told_json["accepted"], told_json["rejected"]) == (
            200,
            "1",
            [{"index": "0", "reason": REASON}],
        )
        for call in (
            stub.log_metric(LogMetricRequest("s", "c", 1.0)),
            stub.log_metrics(LogMetricsRequest([Metric("s", "c", 1.0), Metric("s", "d", 1.0)])),
        ):
            with pytest.raises(GRPCError) as caught:
                await call
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
            assert caught.value.details[0].retry_delay.seconds == 300
        assert await stored(running) == ["a", "a", "b", "b", "b", "b", "b"]
        async with running.database.transactions.transaction() as connection:
            labels = [str(row["labels"]) for row in await connection.fetch("SELECT labels FROM label_sets")]
        assert labels == ['{"x": "y"}']
        received, rejected = (
            running.count(f"ingestor_metrics_{name}_total") for name in ("received", "rejected")
        )
        assert received == rejected + running.count("ingestor_metrics_committed_total") + running.count(
            "ingestor_metrics_duplicates_total"
        )
        assert limited(running) == 1 + 2 + 1 + 1 + 2
    [line] = [line for line in warnings if "distinct series" in line]
    assert "more than 2 distinct series within an hour without a key" in line


async def test_a_dry_run_only_tells(database_url: str, warnings: list[str]) -> None:
    """Everything is stored; log and metric say whose it was, once and not for each request."""
    async with gateway(database_url, series_per_hour_max=1, series_per_hour_dry_run=True) as running:
        for _ in range(2):
            rows = [Metric("s", name, 1.0) for name in ("a", "b", "c")]
            assert (await running.stub.log_metrics(LogMetricsRequest(rows))).accepted == 3
        await running.stub.log_metric(LogMetricRequest("s", "d", 1.0))
        assert len(await stored(running)) == 7
        assert limited(running) == 5
    assert len([line for line in warnings if "dry run" in line]) == 1


async def test_what_finds_no_room_in_the_queue_uses_up_no_series(database_url: str) -> None:
    """Single ones, with a request_id and without, and batches: nothing was taken of them."""
    async with without_room(database_url, admission_wait="0s", series_per_hour_max=2) as full:
        one = Metric("s", "c", 1.0)
        for refused in (
            full.stub.log_metric(LogMetricRequest("s", "a", 1.0)),
            full.stub.log_metric(LogMetricRequest("s", "b", 1.0, request_id="r")),
            full.stub.log_metrics(LogMetricsRequest([one, one])),
            full.stub.log_metrics(LogMetricsRequest([one] * 6)),  # more than the queue ever holds
        ):
            with pytest.raises(GRPCError, match="queue"):
                await refused
        await give_room(full)
        await stored(full)
        assert (await full.stub.log_metric(LogMetricRequest("s", "d", 1.0))).success
        with pytest.raises(GRPCError, match="new series"):
            await full.stub.log_metric(LogMetricRequest("s", "e", 1.0))


async def test_who_gives_up_waiting_for_room_uses_up_no_series(database_url: str) -> None:
    """Whose deadline is over by then: nothing was taken."""
    async with without_room(database_url, series_per_hour_max=2) as full:
        for name in ("a", "b"):
            with pytest.raises((GRPCError, TimeoutError)):
                await full.stub.log_metric(LogMetricRequest("s", name, 1.0), timeout=0.1)
        while full.count("ingestor_queue_waiting_requests"):
            await asyncio.sleep(0.01)
        await give_room(full)
        await stored(full)
        assert (await full.stub.log_metric(LogMetricRequest("s", "d", 1.0))).success


async def test_each_key_has_its_own_bound(database_url: str, tmp_path: Path, warnings: list[str]) -> None:
    """That of the setting, or its own; the log names the key and nothing that it sent."""
    file = KeysFile(tmp_path / "keys")
    (usual, usual_text), (wide, wide_text) = make("write"), make("write", series_per_hour=3)
    file.change(lambda _: [usual, wide])
    async with gateway(database_url, series_per_hour_max=1, keys_file=str(file.path)) as running:
        rows = [Metric("hidden", name, 1.0) for name in ("a", "b", "c", "d")]
        for key, text, accepted in ((usual, usual_text, 1), (wide, wide_text, 3)):
            answer = await running.stub.log_metrics(
                LogMetricsRequest(rows), metadata={"authorization": f"Bearer {text}"}
            )
            assert (answer.accepted, limited(running, key.id)) == (accepted, 4 - accepted)
    told = [line for line in warnings if "distinct series" in line]
    assert [usual.id in told[0], wide.id in told[1], len(told)] == [True, True, 2]
    assert not any("hidden" in line for line in told)
