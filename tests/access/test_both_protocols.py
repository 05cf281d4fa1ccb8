"""What a key opens and what it doesn't, tried over both protocols against a running gateway."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from grpclib import GRPCError, Status
from grpclib.health.v1 import health_pb2 as health
from ingestor_api.analytics.v1 import (
    LogMetricRequest,
    LogMetricsRequest,
    LogMetricsResponse,
    Metric,
    Series,
    WriteSeriesRequest,
)
from loguru import logger
from yarl import URL

from ingestor.access import Key, KeysFile, Need
from ingestor.permissions import NEEDS
from ingestor.transport.rpc import Descriptors
from tests.access.kit import make, revoked
from tests.gateway import Gateway, gateway
from tests.transport.grpc.kit import connected, framed

PREFIX = "billing."
GOOD = "billing.api"
# The last three would be taken for the prefix by who folds case, normalises, or decodes once too often.
FOREIGN = ("payments", "billing", "", "x.billing.", "Billing.api", "b\u0456lling.api", "billing%2Eapi")
RPC = "/analytics.v1.AnalyticsService"
DENIED = (403, 7)
PATHS = [path for path, need in NEEDS.items() if path.startswith(RPC) and need is Need.WRITE]


@dataclass
class Doors:
    """A gateway with the keys of `texts` in its file, by name."""

    running: Gateway
    file: KeysFile
    keys: dict[str, Key]
    texts: dict[str, str]

    def sent(self, name: str, header: str = "authorization") -> dict[str, str]:
        """The key of this name, as metadata and as headers."""
        text = self.texts[name]
        return {header: text if header == "x-api-key" else f"Bearer {text}"}

    async def post(self, path: str | URL, body: bytes | str, **headers: str) -> tuple[int, Any]:
        """Status and code of a POST; of lines, those of the last one."""
        data = body if isinstance(body, bytes) else body.encode()
        async with self.running.http.post(path, data=data, headers=headers) as response:
            lines = (await response.text()).splitlines()
            told = json.loads(lines[-1])
            return response.status, told.get("error", told).get("code")

    async def replace(self, *keys: Key) -> None:
        """These keys instead, in force."""
        self.file.change(lambda _: keys)
        await self.running.app._trust.keys.look()


@pytest.fixture(params=["true", "false"], ids=["lane", "grpclib"])
async def doors(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> AsyncIterator[Doors]:
    file, keys, texts = KeysFile(tmp_path / "keys"), dict[str, Key](), dict[str, str]()
    for name, words in {
        "billing": (f"write:{PREFIX}", f"read:{PREFIX}"),
        "writer": ("write",),
        "reader": ("read",),
        "admin": ("admin",),
    }.items():
        keys[name], texts[name] = make(*words, name=name)
    file.change(lambda _: keys.values())
    async with gateway(database_url, keys_file=str(file.path), grpc_lane=request.param) as running:
        yield Doors(running, file, keys, texts)


def row(service: str, name: str = "mixed") -> dict[str, Any]:
    return {"serviceName": service, "metricName": name, "value": 1}


def series(service: str, name: str = "mixed") -> dict[str, Any]:
    return {"serviceName": service, "metricName": name, "timeUnixNano": [str(time.time_ns())], "value": [1]}


def escaped(text: str) -> str:
    """Each character of JSON strings as an escape of four hexadecimal digits."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


Attempt: TypeAlias = Callable[[str], tuple[str, bytes]]
"""A path and a body that try to write for a foreign service."""


def json_of(path: str, body: Callable[[str], Any]) -> Attempt:
    return lambda service: (path, json.dumps(body(service)).encode())


def metrics(*services: str) -> dict[str, Any]:
    return {"metrics": [row(service) for service in services]}


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


async def services(running: Gateway) -> set[str]:
    """Whose metrics are taken: all are stored first."""
    while running.count("ingestor_metrics_pending"):
        await asyncio.sleep(0.01)
    return {service for _, service, *_ in await running.rows()}


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


async def streamed(doors: Doors, sent: dict[str, str], *batches: list[Metric]) -> list[LogMetricsResponse]:
    """The answers to these on one stream, each sent when the one before it was answered."""
    answered = asyncio.Event()

    async def requests() -> AsyncIterator[LogMetricsRequest]:
        for number, batch in enumerate(batches):
            if number:
                await answered.wait()
                answered.clear()
            yield LogMetricsRequest(batch)

    answers = []
    async for answer in doors.running.stub.stream_metrics(requests(), metadata=sent):
        answers.append(answer)
        answered.set()
    return answers


async def raw(doors: Doors, path: str, body: bytes, sent: dict[str, str]) -> Status:
    """How a call with this body ends, whatever kind of rpc it is."""
    async with connected(doors.running.grpc_port) as client:
        stream = await client.send(framed(body), path=path, headers=sent)
        return Status(int((await client.answer(stream)).headers["grpc-status"]))


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
