"""What a key opens and what it doesn't, tried over both protocols against a running gateway."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from grpclib.health.v1 import health_pb2 as health
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
    LogMetricsRequest,
    Metric,
)
from loguru import logger

from ingestor.access import KeysFile, Need
from ingestor.permissions import NEEDS
from ingestor.transport.rpc import Descriptors
from tests.access.doors import DENIED, RPC, Doors, metrics, raw, row, services, streamed
from tests.access.kit import make, revoked
from tests.gateway import gateway

PATHS = [path for path, need in NEEDS.items() if path.startswith(RPC) and need is Need.WRITE]


async def test_nothing_is_read_of_who_is_not_let_in(doors: Doors) -> None:
    """Each rpc and each route: without a valid key, garbage is UNAUTHENTICATED and not INVALID_ARGUMENT, and a body
    is not waited for; with one that lacks the scope, it is PERMISSION_DENIED."""
    garbage = b"\xff" * 9
    for path in PATHS:
        assert await raw(doors, path, garbage, {}) is Status.UNAUTHENTICATED
        bad = {"authorization": "Bearer ing_00000000_" + "0" * 43}
        assert await raw(doors, path, garbage, bad) is Status.UNAUTHENTICATED
        assert await raw(doors, path, garbage, doors.sent("reader")) is Status.PERMISSION_DENIED
        assert await raw(doors, path, garbage, doors.sent("writer")) is Status.INVALID_ARGUMENT
    for path in ("/v1/metrics", "/v1/metrics:batch", "/v1/series:write", "/v1/metrics:stream"):
        assert await doors.post(path, "{") == (401, 16)
        assert await doors.post(path, "{", **doors.sent("reader")) == DENIED
        assert await doors.post(path, "{", **doors.sent("writer", "x-api-key")) == (400, 3)
    reader, writer = await asyncio.open_connection("127.0.0.1", doors.running.http_port)
    writer.write(b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in head
    writer.close()
    assert doors.running.count("ingestor_metrics_received_total") == 0


def test_every_rpc_has_its_need() -> None:
    """Of those that are served; what is forgotten needs admin."""
    methods = Descriptors.of_package("ingestor_api")._methods
    assert set(methods) <= set(NEEDS)


async def test_pages_probes_and_reflection(doors: Doors) -> None:
    """Probes are open, also with a bad key; what tells of all services needs to read all of them."""
    expected = {
        "/healthz": (200, 200, 200, 200),
        "/readyz": (200, 200, 200, 200),
        "/metrics": (401, 403, 403, 200),
        "/openapi.json": (401, 403, 200, 200),
        "/docs": (401, 403, 200, 200),
        "/docs/swagger-ui.js": (401, 403, 200, 200),
    }
    for path, statuses in expected.items():
        for headers, status in zip(
            ({"x-api-key": "x"}, *(doors.sent(name) for name in ("writer", "billing", "reader"))),
            statuses,
            strict=True,
        ):
            for method in ("GET", "HEAD"):
                async with doors.running.http.request(method, path, headers=headers) as response:
                    assert response.status == status, (path, headers)
    check = health.HealthCheckRequest().SerializeToString()
    assert await raw(doors, "/grpc.health.v1.Health/Check", check, {}) is Status.OK
    reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    assert await raw(doors, reflection, b"", {}) is Status.UNAUTHENTICATED
    assert await raw(doors, reflection, b"", doors.sent("writer")) is Status.OK


async def test_a_request_id_is_its_callers(doors: Doors) -> None:
    """Two callers may use one without meeting; a key that replaces another is the same caller."""
    stub = doors.running.stub
    sent = [doors.sent("writer"), doors.sent("admin")]
    for value, who in enumerate(sent):
        request = LogMetricRequest("s", "m", float(value), ack=3, request_id="same")  # type: ignore[arg-type]
        for _ in range(2):
            assert (await stub.log_metric(request, metadata=who)).success
    body = json.dumps({**row("s"), "value": 7, "requestId": "same"})
    assert await doors.post("/v1/metrics", body, **sent[0]) == (409, 6)
    new, text = make("write", caller=doors.keys["writer"].id)
    await doors.replace(*doors.keys.values(), new)
    assert await doors.post("/v1/metrics", body, authorization=f"Bearer {text}") == (409, 6)
    assert await doors.post("/v1/metrics", body, **doors.sent("billing")) == DENIED
    assert [value for *_, value, _ in await doors.running.rows()] == [0.0, 1.0]


async def test_rates_are_told_with_when_to_come_again(database_url: str, tmp_path: Path) -> None:
    """429 with Retry-After, RESOURCE_EXHAUSTED with RetryInfo; the bucket is one for both protocols."""
    file = KeysFile(tmp_path / "keys")
    key, text = make("write", requests_per_s=0.01)
    bulk, bulk_text = make("write", metrics_per_s=0.01)
    file.change(lambda _: [key, bulk])
    async with gateway(database_url, keys_file=str(file.path)) as running:
        doors = Doors(running, file, {}, {"slow": text, "bulk": bulk_text})
        await running.stub.log_metric(LogMetricRequest("s", "m", 1.0), metadata=doors.sent("slow"))
        # The batch is larger than the bucket, which it empties for long.
        await running.stub.log_metrics(
            LogMetricsRequest([Metric("s", "m", 1.0)] * 3), metadata=doors.sent("bulk")
        )
        for name in ("slow", "bulk"):
            with pytest.raises(GRPCError) as caught:
                await running.stub.log_metric(LogMetricRequest("s", "m", 1.0), metadata=doors.sent(name))
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
            assert 90 <= caught.value.details[0].retry_delay.seconds <= 300
            headers = doors.sent(name, "x-api-key")
            async with running.http.post(
                "/v1/metrics:batch", json=metrics("s", "s"), headers=headers
            ) as response:
                assert response.status == 429
                assert 90 <= int(response.headers["Retry-After"]) <= 400
            with pytest.raises(GRPCError) as caught:
                await streamed(doors, doors.sent(name), [Metric("s", "m", 1.0)])
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert running.count("ingestor_metrics_received_total") == 4


async def test_a_stream_is_paced_and_not_refused(database_url: str, tmp_path: Path) -> None:
    """Its messages count as requests; what comes too soon waits."""
    file = KeysFile(tmp_path / "keys")
    key, text = make("write", requests_per_s=20.0)
    bulk, bulk_text = make("write", metrics_per_s=200.0)
    file.change(lambda _: [key, bulk])
    async with gateway(database_url, keys_file=str(file.path)) as running:
        doors = Doors(running, file, {}, {"paced": text, "bulk": bulk_text})
        began_at = time.monotonic()
        answers = await streamed(doors, doors.sent("paced"), *[[Metric("s", "m", 1.0)]] * 30)
        assert sum(answer.accepted for answer in answers) == 30
        assert time.monotonic() - began_at >= 0.45  # twenty at once, and ten more
        batch = [Metric("s", "m", 1.0)] * 100
        began_at = time.monotonic()
        answers = await streamed(doors, doors.sent("bulk"), *[batch] * 3)
        assert sum(answer.accepted for answer in answers) == 300
        assert time.monotonic() - began_at >= 0.4


async def test_keys_change_under_calls(doors: Doors) -> None:
    """A revoked key ends the stream that began with it, after the answer in hand, and the next call on the same
    connection; the new key serves at once."""
    sent = doors.sent("writer")
    stub = doors.running.stub
    await stub.log_metric(LogMetricRequest("s", "m", 1.0), metadata=sent)
    revoking = asyncio.Event()

    async def requests() -> AsyncIterator[LogMetricsRequest]:
        yield LogMetricsRequest([Metric("s", "m", 2.0)])
        await revoking.wait()
        yield LogMetricsRequest([Metric("s", "m", 3.0)])

    answers = stub.stream_metrics(requests(), metadata=sent)
    assert (await anext(aiter(answers))).accepted == 1
    new, text = make("write", caller=doors.keys["writer"].id)
    await doors.replace(revoked(doors.keys["writer"]), new)
    revoking.set()
    with pytest.raises(GRPCError) as caught:
        await anext(aiter(answers))
    assert caught.value.status is Status.UNAUTHENTICATED
    with pytest.raises(GRPCError) as caught:
        await stub.log_metric(LogMetricRequest("s", "m", 4.0), metadata=sent)
    assert caught.value.status is Status.UNAUTHENTICATED
    assert await doors.post("/v1/metrics", json.dumps(row("s")), **sent) == (401, 16)
    await stub.log_metric(LogMetricRequest("s", "m", 5.0), metadata={"x-api-key": text})
    assert await services(doors.running) == {"s"}
    assert [value for *_, value, _ in await doors.running.rows()] == [1.0, 2.0, 5.0]


async def test_no_secret_is_ever_logged(doors: Doors) -> None:
    """At the lowest level, whatever is wrong with a call."""
    lines: list[str] = []
    ours = logger.add(lines.append, level=0, format="{message} {extra} {exception}")
    try:
        secrets = [*doors.texts.values(), "ing_00000000_" + "S" * 43, "not-a-key-but-secret"]
        for text in secrets:
            for headers in (
                {"authorization": f"Bearer {text}"},
                {"x-api-key": text},
                {"x-api-key": text + "ü"},
            ):
                for path in ("/v1/metrics", "/v1/metrics:batch", "/metrics", "/nowhere"):
                    async with doors.running.http.post(path, data=b"{", headers=headers) as response:
                        assert text not in await response.text()
            for path in (*PATHS, "/a.B/C"):
                await raw(doors, path, b"\xff", {"authorization": f"Bearer {text}"})
        new, text = make("write")
        await doors.replace(*doors.keys.values(), new)
        doors.file.path.write_text(text)
        await doors.running.app._trust.keys.look()
    finally:
        logger.remove(ours)
    assert any("stay in force" in line for line in lines)
    for secret in (*secrets, text, new.sha256):
        assert not any(secret[-20:] in line for line in lines)


async def test_probes_and_the_drain_need_no_key(doors: Doors) -> None:
    """A file that is broken makes the gateway `degraded`, which is ready; stopping ends in order."""
    doors.file.path.write_text("{")
    await doors.running.app._trust.keys.look()
    async with doors.running.http.get("/readyz") as response:
        told = await response.json()
        assert (response.status, told["status"]) == (200, "degraded")
        # Who asks has no key: the log says what is wrong.
        assert "can't be used" in told["checks"]["keys"]
        assert not any(word in told["checks"]["keys"] for word in (str(doors.file.path), "line 1"))
    assert doors.running.count("ingestor_keys_problem") == 1
    assert doors.running.count("ingestor_keys_valid") == 4
    await doors.running.stub.log_metric(LogMetricRequest("s", "m", 1.0), metadata=doors.sent("writer"))
    assert await doors.running.app.stop(10) == 0
    assert doors.running.count("ingestor_metrics_committed_total") == 1
