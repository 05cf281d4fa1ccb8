"""A key that writes for some services writes for no other, however it is tried."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from grpclib import GRPCError, Status
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
    LogMetricsRequest,
    Metric,
    Series,
    WriteSeriesRequest,
)
from yarl import URL

from ingestor.access import KeysFile
from tests.access.doors import DENIED, GOOD, PREFIX, Doors, metrics, row, services, streamed
from tests.access.kit import make
from tests.gateway import gateway

# The last three would be taken for the prefix by who folds case, normalises, or decodes once too often.
FOREIGN = ("payments", "billing", "", "x.billing.", "Billing.api", "b\u0456lling.api", "billing%2Eapi")


def series(service: str, name: str = "mixed") -> dict[str, Any]:
    return {"serviceName": service, "metricName": name, "timeUnixNano": [str(time.time_ns())], "value": [1]}


def escaped(text: str) -> str:
    """Each character of JSON strings as an escape of four hexadecimal digits."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


Attempt: TypeAlias = Callable[[str], tuple[str, bytes]]
"""A path and a body that try to write for a foreign service."""


def json_of(path: str, body: Callable[[str], Any]) -> Attempt:
    return lambda service: (path, json.dumps(body(service)).encode())


ATTEMPTS: dict[str, Attempt] = {
    "one": json_of("/v1/metrics", row),
    "by the proto name": json_of(
        "/v1/metrics", lambda name: {"service_name": name, "metric_name": "mixed", "value": 1}
    ),
    "escaped": lambda name: (
        "/v1/metrics",
        f'{{"serviceName":"{escaped(name)}","metricName":"mixed","value":1}}'.encode(),
    ),
    "with a request_id": json_of("/v1/metrics", lambda name: {**row(name), "requestId": "r"}),
    "with odd white space": lambda name: ("/v1/metrics", json.dumps(row(name), indent=3).encode()),
    "a batch": json_of("/v1/metrics:batch", metrics),
    "behind a good one": json_of("/v1/metrics:batch", lambda name: metrics(GOOD, name)),
    "before good ones": json_of("/v1/metrics:batch", lambda name: metrics(name, GOOD, GOOD)),
    "among many": json_of("/v1/metrics:batch", lambda name: metrics(*[GOOD] * 6000, name, *[GOOD] * 6000)),
    "among bad ones": json_of(
        "/v1/metrics:batch", lambda name: {"metrics": [row(GOOD), {**row(name), "value": "NaN"}]}
    ),
    "a labelled batch": json_of(
        "/v1/metrics:batch",
        lambda name: {"metrics": [row(GOOD), {**row(name), "labels": {"service_name": GOOD}}]},
    ),
    "not in the plain way": lambda name: (
        "/v1/metrics:batch",
        f'{{"metrics":[{{"service_name":"{escaped(name)}","metricName":"mixed","value":"1"}}]}}'.encode(),
    ),
    "series": json_of("/v1/series:write", lambda name: {"series": [series(name)]}),
    "series behind a good one": json_of(
        "/v1/series:write", lambda name: {"series": [series(GOOD), series(name)]}
    ),
    "a stream": json_of("/v1/metrics:stream", lambda name: metrics(GOOD, name)),
}


async def test_no_json_writes_for_another_service(database_url: str, tmp_path: Path) -> None:
    """403 for each name, by each route, field and order; nothing of it is taken, not even what may be written."""
    file, (key, text) = KeysFile(tmp_path / "keys"), make(f"write:{PREFIX}")
    file.change(lambda _: [key])
    async with gateway(database_url, keys_file=str(file.path)) as running:
        doors = Doors(running, file, {"billing": key}, {"billing": text})
        sent, taken = doors.sent("billing"), 0
        for how, attempt in ATTEMPTS.items():
            for name in FOREIGN:
                path, body = attempt(name)
                assert await doors.post(path, body, **sent) == DENIED, (how, name)
            if not path.endswith("stream"):
                zipped = {**sent, "Content-Encoding": "gzip"}
                assert await doors.post(path, gzip.compress(body), **zipped) == DENIED, how
            path, body = attempt("billing.allowed")
            status, _ = await doors.post(path, body, **sent)
            assert status == 200, how
            taken += rows_of(body)
            assert running.count("ingestor_metrics_received_total") == taken, how
        assert await services(running) == {GOOD, "billing.allowed"}


def rows_of(body: bytes) -> int:
    sent = json.loads(body)
    return len(sent.get("metrics", sent.get("series", [1])))


async def test_other_forms_of_json_do_not_get_by(doors: Doors) -> None:
    """Two values for one field, a path that is escaped, parameters beside the body, a second key: whatever each of
    them is answered, nothing foreign is taken."""
    sent = doors.sent("billing")
    twice = '{"serviceName":"billing.x","serviceName":"payments","metricName":"m","value":1}'
    both = '{"serviceName":"billing.x","service_name":"payments","metricName":"m","value":1}'
    good, bad = json.dumps(row(GOOD)), json.dumps(row("payments"))
    other = {"Grpc-Metadata-Authorization": f"Bearer {doors.texts['writer']}"}
    trials: Sequence[tuple[str, str, dict[str, str]]] = [
        ("/v1/metrics", twice, {}),
        ("/v1/metrics", both, {}),
        ("/v1/%6Detrics", bad, {}),
        ("/v1/metrics%3Abatch", json.dumps(metrics("payments")), {}),
        ("//v1/metrics", bad, {}),
        ("/v1/metrics/", bad, {}),
        ("/v1/metrics?serviceName=payments", good, {}),
        ("/v1/metrics?service_name=payments", good, {}),
        ("/v1/metrics", bad, other),
        ("/v1/metrics", bad, {"x-api-key": doors.texts["writer"]}),
        ("/v1/metrics", bad, {"X-HTTP-Method-Override": "GET"}),
    ]
    base = str(doors.running.http._base_url).rstrip("/")
    for path, body, headers in trials:
        status, _ = await doors.post(URL(base + path, encoded=True), body, **sent, **headers)
        assert status in {400, 401, 403, 404}, (path, body)
    assert doors.running.count("ingestor_metrics_pending") == 0
    assert await services(doors.running) == set()


async def test_no_message_writes_for_another_service(doors: Doors) -> None:
    """The same over gRPC, by each rpc."""
    stub, sent = doors.running.stub, doors.sent("billing")
    now = time.time_ns()
    for name in FOREIGN:
        rows = [Metric(GOOD, "mixed", 1.0), Metric(name, "mixed", 1.0)]
        columns = [Series(GOOD, "mixed", {}, [now], [1.0]), Series(name, "mixed", {}, [now], [1.0])]
        calls: list[Coroutine[Any, Any, object]] = [
            stub.log_metric(LogMetricRequest(name, "mixed", 1.0), metadata=sent),
            stub.log_metric(LogMetricRequest(name, "m", 1.0, request_id="r"), metadata=sent),
            stub.log_metrics(LogMetricsRequest(rows), metadata=sent),
            stub.log_metrics(LogMetricsRequest(rows[::-1]), metadata=sent),
            stub.log_metrics(LogMetricsRequest(rows, request_id="r"), metadata=sent),
            stub.write_series(WriteSeriesRequest(columns), metadata=sent),
            streamed(doors, sent, [Metric(GOOD, "first", 1.0)], rows),
        ]
        for call in calls:
            with pytest.raises(GRPCError) as caught:
                await call
            assert caught.value.status is Status.PERMISSION_DENIED
    # What the streams had sent before.
    assert doors.running.count("ingestor_metrics_received_total") == len(FOREIGN)
    assert await services(doors.running) == {GOOD}
    assert {name for _, _, name, *_ in await doors.running.rows()} == {"first"}
