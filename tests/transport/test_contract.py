"""What callers are promised, the same over both protocols."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpclib import GRPCError, Status
from ingestor_api.analytics.v1 import LogMetricRequest, LogMetricsRequest, Metric

from tests.gateway import Gateway, gateway


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


GOOD = {"serviceName": "s", "metricName": "m", "value": 1}
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)

BAD: list[tuple[dict[str, Any], LogMetricRequest, str]] = [
    ({"serviceName": "s", "metricName": "m"}, LogMetricRequest("s", "m"), "value"),
    ({**GOOD, "serviceName": ""}, LogMetricRequest("", "m", 1.0), "service_name"),
    ({**GOOD, "metricName": "a\0b"}, LogMetricRequest("s", "a\0b", 1.0), "metric_name"),
    ({**GOOD, "value": "NaN"}, LogMetricRequest("s", "m", math.nan), "value"),
    ({**GOOD, "value": "-Infinity"}, LogMetricRequest("s", "m", -math.inf), "value"),
    ({**GOOD, "time": "2001-01-01T00:00:00Z"}, LogMetricRequest("s", "m", 1.0, LONG_AGO), "time"),
    ({**GOOD, "labels": {"": "x"}}, LogMetricRequest("s", "m", 1.0, labels={"": "x"}), "labels"),
]


@pytest.mark.parametrize(("body", "request_", "path"), BAD)
async def test_a_bad_field_is_named(
    running: Gateway, body: dict[str, Any], request_: LogMetricRequest, path: str
) -> None:
    """INVALID_ARGUMENT and 400, with the same message and the same BadRequest, and nothing is taken."""
    status, answer = await running.post("/v1/metrics", body)
    assert (status, answer["code"]) == (400, 3)
    assert [violation["field"] for violation in answer["details"][0]["fieldViolations"]] == [path]
    with pytest.raises(GRPCError) as caught:
        await running.stub.log_metric(request_)
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert caught.value.message == answer["message"]
    [details] = caught.value.details
    assert isinstance(details, BadRequest)
    assert details.field_violations[0].field == path
    assert running.count("ingestor_metrics_pending") == 0
    assert running.count("ingestor_metrics_rejected_total") == 2


async def test_some_rows_of_a_batch_may_be_bad(running: Gateway) -> None:
    """The good ones are taken, the others told by index and reason; JSON says the same as gRPC."""
    rows = [Metric("s", "m", 1.0), Metric("s", "m"), Metric("s", "", math.inf), Metric("s", "m", 2.0)]
    response = await running.stub.log_metrics(LogMetricsRequest(rows))
    assert response.accepted == 2
    told = [(rejected.index, rejected.reason) for rejected in response.rejected]
    assert told == [
        (1, "value: is required"),
        (2, "metric_name: must not be empty; value: must be a finite number"),
    ]
    metrics = [
        GOOD,
        {"serviceName": "s", "metricName": "m"},
        {**GOOD, "metricName": "", "value": "Infinity"},
        GOOD,
    ]
    status, answer = await running.post("/v1/metrics:batch", {"metrics": metrics})
    assert status == 200
    assert answer["accepted"] == "2"
    assert [(int(each["index"]), each["reason"]) for each in answer["rejected"]] == told


async def test_a_batch_without_a_good_row_is_refused(running: Gateway) -> None:
    """INVALID_ARGUMENT, with paths that say which metric."""
    with pytest.raises(GRPCError) as caught:
        await running.stub.log_metrics(LogMetricsRequest([Metric("s", "m"), Metric("", "m", 1.0)]))
    assert caught.value.status is Status.INVALID_ARGUMENT
    fields = [violation.field for violation in caught.value.details[0].field_violations]
    assert fields == ["metrics[0].value", "metrics[1].service_name"]
    status, answer = await running.post("/v1/metrics:batch", {"metrics": []})
    assert (status, answer["details"][0]["fieldViolations"][0]["field"]) == (400, "metrics")


async def test_a_batch_with_too_many_rows_is_refused(running: Gateway) -> None:
    """50,000 metrics at most, whatever they weigh."""
    with pytest.raises(GRPCError, match="50000 at most") as caught:
        await running.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 1.0)] * 50_001))
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_an_unset_time_is_the_time_of_receipt(running: Gateway) -> None:
    """To the microsecond, between sending and the answer."""
    before = datetime.now(UTC)
    await running.stub.log_metric(LogMetricRequest("s", "m", 1.0))
    after = datetime.now(UTC)
    await running.app.stop()
    assert running.count("ingestor_metrics_committed_total") == 1
    assert before <= await _only_time(running) <= after


async def _only_time(running: Gateway) -> datetime:
    import asyncpg

    connection = await asyncpg.connect(running.app.database_url)
    found = await connection.fetchval("SELECT time FROM metrics")
    await connection.close()
    assert isinstance(found, datetime)
    return found


async def test_both_protocols_store_the_same(running: Gateway) -> None:
    """Time, names, value and labels of a metric are the same rows, whichever way they came."""
    moment = datetime.now(UTC).replace(microsecond=654321) - timedelta(hours=3)
    await running.stub.log_metric(LogMetricRequest("ü", "m/1", 0.1, moment, {"a": "b", "c": ""}))
    text = moment.isoformat().replace("+00:00", "Z")
    body = {
        "service_name": "ü",
        "metricName": "m/1",
        "value": "0.1",
        "time": text,
        "labels": {"c": "", "a": "b"},
    }
    assert (await running.post("/v1/metrics", body))[0] == 200
    deadline = time.monotonic() + 10
    while len(rows := await running.rows()) < 2:
        assert time.monotonic() < deadline
    assert rows[0] == rows[1] == (moment, "ü", "m/1", 0.1, '{"a": "b", "c": ""}')


async def test_a_request_larger_than_the_whole_queue_is_invalid(database_url: str) -> None:
    """Waiting would not help, so it is not RESOURCE_EXHAUSTED."""
    async with gateway(database_url, queue_capacity=3) as small:
        with pytest.raises(GRPCError) as caught:
            await small.stub.log_metrics(LogMetricsRequest([Metric("s", "m", 1.0)] * 4))
        assert caught.value.status is Status.INVALID_ARGUMENT
        status, _ = await small.post("/v1/metrics:batch", {"metrics": [GOOD] * 4})
        assert status == 400
