"""The rules of the design that this server was first drawn as, with that design's parameters: batch size 5,
flush interval 1 s, a channel of 10. Each test names its rule."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from grpclib import GRPCError, Status
from ingestor_api.analytics.v1 import LogMetricRequest

from tests.gateway import FIRST_DESIGN, Gateway, gateway


@pytest.fixture
async def first(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url, **FIRST_DESIGN) as running:
        yield running


@pytest.fixture
async def blocked(database_url: str) -> AsyncIterator[Gateway]:
    """With the table locked by somebody else, so that nothing can be stored until `blocked.unblock()`."""
    async with gateway(database_url, **FIRST_DESIGN) as running:
        connection = await asyncpg.connect(database_url)
        lock = connection.transaction()
        await lock.start()
        await connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        running.unblock = lock.rollback  # type: ignore[attr-defined]
        yield running
        await connection.close()


async def send(gateway: Gateway, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        await gateway.stub.log_metric(LogMetricRequest("s", "m", float(number)))


async def until_stored(gateway: Gateway, rows: int) -> None:
    while len(await gateway.rows()) < rows:
        await asyncio.sleep(0.01)


async def test_rule_room_means_acknowledged_at_once(blocked: Gateway) -> None:
    """`log_metric` with room in the channel answers success without waiting for the database."""
    response = await asyncio.wait_for(blocked.stub.log_metric(LogMetricRequest("s", "m", 1.0)), 0.5)
    assert response.success
    await blocked.unblock()  # type: ignore[attr-defined]


async def test_rule_full_means_an_error_and_nothing_taken(blocked: Gateway) -> None:
    """The eleventh metric is refused by both protocols, at once; the ten are stored, it is not."""
    await send(blocked, 10)
    started = time.perf_counter()
    with pytest.raises(GRPCError) as caught:
        await send(blocked, 1, start=10)
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    status, body = await blocked.post("/v1/metrics", {"serviceName": "s", "metricName": "m", "value": 11})
    assert (status, body["code"]) == (429, Status.RESOURCE_EXHAUSTED.value)
    assert time.perf_counter() - started < 0.5
    await blocked.unblock()  # type: ignore[attr-defined]
    await until_stored(blocked, 10)
    assert [row[3] for row in await blocked.rows()] == [float(number) for number in range(10)]
    assert blocked.count("ingestor_metrics_refused_total") == 2


async def test_rule_batch_size_comes_first(first: Gateway) -> None:
    """Five metrics are stored without waiting for the ticker."""
    started = time.perf_counter()
    await send(first, 5)
    await until_stored(first, 5)
    assert time.perf_counter() - started < 0.9
    assert first.count("ingestor_flush_rows_sum") == 5
    assert first.count("ingestor_flush_rows_count") == 1


async def test_rule_the_ticker_comes_first(first: Gateway) -> None:
    """Fewer than five are stored after a second."""
    started = time.perf_counter()
    await send(first, 4)
    await until_stored(first, 4)
    assert 0.9 < time.perf_counter() - started < 5
    assert first.count("ingestor_flush_rows_count") == 1


async def test_rule_a_batch_is_one_transaction(first: Gateway) -> None:
    """`flush_batch` hands the batch over in a transaction: its rows have one transaction id."""
    await send(first, 5)
    await until_stored(first, 5)
    execute = first.database.transactions.execute
    assert await execute("SELECT count(DISTINCT xmin::text) FROM metrics") == 1


async def test_rule_on_failure_rollback_and_log_but_the_batch_is_kept(first: Gateway) -> None:
    """Where the first design forgot a failed batch, this one rolls it back, logs it, keeps it and retries."""
    database = first.database
    await database.transactions.execute("ALTER TABLE metrics RENAME TO away")
    await send(first, 5)
    while not first.count("ingestor_flush_failures_total"):
        await asyncio.sleep(0.01)
    assert first.count("ingestor_metrics_pending") == 5
    await database.transactions.execute("ALTER TABLE away RENAME TO metrics")
    await until_stored(first, 5)
    assert first.count("ingestor_metrics_committed_total") == 5


async def test_rule_rows_hold_what_was_sent(first: Gateway) -> None:
    """time, service_name, metric_name and value, as they came."""
    body: dict[str, Any] = {
        "serviceName": "a",
        "metricName": "b",
        "value": 2.5,
        "time": "2026-11-24T10:00:00.000001Z",
    }
    body["time"] = time.strftime("%Y-%m-%dT%H:%M:%S.000001Z", time.gmtime())
    assert await first.post("/v1/metrics", body) == (200, {"success": True})
    await until_stored(first, 1)
    [(stored_at, *rest)] = await first.rows()
    assert stored_at.isoformat() == body["time"].replace("Z", "+00:00")
    assert rest == ["a", "b", 2.5, "{}"]
