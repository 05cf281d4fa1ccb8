"""JSON bodies over a real socket: read as one types them, and what is wrong has its path."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ingestor.transport.transcoding import json_body
from tests.gateway import Gateway
from tests.transport.http.kit import GOOD


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-www-form-urlencoded"])
async def test_curl_works_as_one_types_it(running: Gateway, content_type: str | None) -> None:
    """An absent type and that of `curl -d` are read as JSON; the answer is compact JSON."""
    skip = () if content_type else ("Content-Type",)
    headers = {"Content-Type": content_type} if content_type else {}
    async with running.http.post(
        "/v1/metrics", data=GOOD.encode(), headers=headers, skip_auto_headers=skip
    ) as answer:
        assert (answer.status, await answer.text()) == (200, '{"success":true}')
        assert answer.content_type == "application/json"
        assert "aiohttp" not in answer.headers["Server"]


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        (
            '{"timestamp":"2026-01-01T00:00:00Z","serviceName":"s","metricName":"m","value":1}',
            "timestamp",
            "no field",
        ),
        ('{"serviceName":"s","metricName":"m","value":"x"}', "value", "number"),
        ('{"serviceName":1,"metricName":"m","value":1}', "service_name", ""),
        ('{"serviceName":"s","metricName":"m","value":1,"time":"yesterday"}', "time", ""),
        ('{"serviceName":"s","metricName":"m","value":1,"labels":{"a":1}}', 'labels["a"]', ""),
        ('{"serviceName":"s","metricName":"m","value":1,"labels":[]}', "labels", ""),
    ],
)
async def test_a_wrong_field_is_named_by_its_path(running: Gateway, body: str, field: str, text: str) -> None:
    """What JSON can't say for this message: 400, code 3, and the field in proto names."""
    status, answer = await running.post("/v1/metrics", body)
    assert (status, answer["code"]) == (400, 3)
    [violation] = answer["details"][0]["fieldViolations"]
    assert violation["field"] == field
    assert text in violation["description"]
    assert field in answer["message"]


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        ('{"serviceName":"s","metricName":"m","value":[]}', "metrics[1].value"),
        ('{"nope":1}', "metrics[1].nope"),
        ("7", "metrics[1]"),
        ("null", "metrics[1]"),
        ('{"serviceName":"s","metricName":"m","value":1,"time":{"seconds":1}}', "metrics[1].time"),
    ],
)
async def test_a_wrong_field_in_a_list_has_its_index(running: Gateway, metric: str, field: str) -> None:
    """The path leads to the element."""
    status, answer = await running.post("/v1/metrics:batch", f'{{"metrics":[{GOOD},{metric}]}}')
    assert status == 400
    assert answer["details"][0]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"7",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"value":1,"value":2}',
        b"[" * 100_000,
        b'{"metrics":{}}',
    ],
)
async def test_what_is_no_such_json_is_400(running: Gateway, body: bytes) -> None:
    """Never 500, and nothing of our insides in the message."""
    for path in ("/v1/metrics", "/v1/metrics:batch"):
        status, answer = await running.post(path, body)
        assert (status, answer["code"]) == (400, 3)
        assert "Traceback" not in answer["message"]


async def test_a_large_body_is_parsed_beside_the_loop(
    running: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are answered meanwhile."""
    load: Any = json_body._load
    threads: list[int] = []

    def watched(body: bytes) -> Any:
        threads.append(threading.get_ident())
        return load(body)

    monkeypatch.setattr(json_body, "_load", watched)
    odd = GOOD.replace("serviceName", "service_name")  # not plain enough for columns
    await running.post("/v1/metrics", odd)
    status, _ = await running.post("/v1/metrics:batch", f'{{"metrics":[{",".join([odd] * 1000)}]}}')
    assert status == 200
    assert threads[0] == threading.get_ident() != threads[1]


async def test_a_batch_of_too_many_elements_is_400(running: Gateway) -> None:
    """With the field's name, before any of them is parsed."""
    status, answer = await running.post("/v1/metrics:batch", f'{{"metrics":[{",".join(["{}"] * 50_001)}]}}')
    assert status == 400
    assert answer["message"] == "metrics: has too many elements, 50000 at most: send smaller batches"


async def test_a_number_beyond_all_floats_is_400(running: Gateway, complaints: list[str]) -> None:
    """And so is a name that no protobuf string can hold."""
    for metric, field in (('{"value":1' + "0" * 400 + "}", "value"), ('{"\\ud800":1}', "\\ud800")):
        for path, body in (("/v1/metrics", metric), ("/v1/metrics:batch", f'{{"metrics":[{metric}]}}')):
            status, answer = await running.post(path, body)
            assert status == 400
            assert answer["details"][0]["fieldViolations"][0]["field"].endswith(field)
    assert complaints == []
