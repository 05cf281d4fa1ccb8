"""The document of our own API, against a gateway that serves it."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
from google.api import annotations_pb2
from openapi_spec_validator import OpenAPIV31SpecValidator

from ingestor.transport.rpc import Descriptors
from tests.gateway import Gateway, gateway
from tests.server_process import serve
from tests.transport.openapi.browser import chromium, tab

# `make fuzz` sets more, with a seed that is said where something fails; a short run always tries the same.
CASES = int(os.environ.get("API_FUZZ_CASES", "20"))
SEED = os.environ.get("FUZZ_SEED", str(random.randrange(10**9)) if CASES > 20 else "1")
# The document says how a request is best written, its comments what a value may be: both sides may be wrong there.
UNCHECKED = "positive_data_acceptance,negative_data_rejection"
GOOD = {"serviceName": "s", "metricName": "m", "value": 1}
METHODS = ("get", "put", "post", "delete", "patch")


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


async def document_of(running: Gateway) -> dict[str, Any]:
    async with running.http.get("/openapi.json") as response:
        document: dict[str, Any] = await response.json()
        return document


async def test_it_says_how_a_key_is_sent(running: Gateway) -> None:
    """In one of two ways, or not at all where none are needed; no operation says otherwise."""
    document = await document_of(running)
    schemes = document["components"]["securitySchemes"]
    assert {name: (one["type"], one.get("scheme"), one.get("name")) for name, one in schemes.items()} == {
        "bearer": ("http", "bearer", None),
        "key": ("apiKey", None, "x-api-key"),
    }
    assert document["security"] == [{"bearer": []}, {"key": []}, {}]
    assert not any("security" in each for item in document["paths"].values() for each in item.values())


async def test_it_is_valid_complete_and_described(running: Gateway) -> None:
    """Every rule in the descriptor set has its operation, and whatever can have a description does."""
    document = await document_of(running)
    OpenAPIV31SpecValidator(document).validate()
    files = Descriptors.of_package("ingestor_api").files.values()
    rules = [
        binding
        for file in files
        for service in file.service
        for method in service.method
        for rule in [method.options.Extensions[annotations_pb2.http]]
        for binding in [rule, *rule.additional_bindings]
        if binding.WhichOneof("pattern")
    ]
    operations = [item[method] for item in document["paths"].values() for method in METHODS if method in item]
    assert len(operations) == len(rules) > 0
    for operation in operations:
        described = [
            operation,
            *operation.get("parameters", []),
            *document["components"]["responses"].values(),
        ]
        assert all(each["description"] for each in described)
    for name, schema in document["components"]["schemas"].items():
        if not name.startswith("google."):
            assert all(each.get("description") for each in schema.get("properties", {}).values()), name


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/metrics", GOOD, 200),
        ("/v1/metrics:batch", {"metrics": [GOOD, {}]}, 200),
        ("/v1/series:write", {"series": [{**GOOD, "value": [1], "timeUnixNano": ["1"]}]}, 400),
        ("/v1/metrics", {}, 400),
        ("/v1/metrics:batch", {"metrics": [GOOD], "requestId": "\0"}, 400),
    ],
)
async def test_answers_are_as_described(running: Gateway, path: str, body: Any, status: int) -> None:
    """Good ones, partly good ones, and errors with and without details."""
    document = await document_of(running)
    found, answer = await running.post(path, body)
    assert found == status
    response = document["paths"][path]["post"]["responses"][str(status)]
    if "$ref" in response:
        response = document["components"]["responses"][str(status)]
    schema = {
        **response["content"]["application/json"]["schema"],
        "components": document["components"],
    }
    jsonschema_rs.validator_for(schema).validate(answer)


@pytest.mark.timeout(60 + CASES * 2)
async def test_no_request_finds_an_answer_outside_of_it(running: Gateway, tmp_path: Path) -> None:
    """Requests made from the document, and such as break it: no 500, and every answer as described. Streams, which
    may have no end, are left out."""
    document = await document_of(running)
    streams = [
        f"--exclude-operation-id={operation['operationId']}"
        for item in document["paths"].values()
        for operation in item.values()
        if "application/x-ndjson" in str(operation)
    ]
    url = f"http://{running.host}:{running.http_port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--checks=all", "--no-color", *streams]
    options = [f"--exclude-checks={UNCHECKED}", f"--max-examples={CASES}", f"--seed={SEED}", "--warnings=off"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *options,
        "--generation-database=none",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"FUZZ_SEED={SEED}\n{said.decode()}"


async def test_the_page_shows_it_and_tries_a_call(database_url: str, tmp_path: Path) -> None:
    """In a browser, against `ingestor serve`: every operation is shown, an example that is sent is taken, and no
    other origin is asked."""
    browser = chromium()
    if browser is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    async with (
        serve(tmp_path, database_url=database_url) as server,
        aiohttp.ClientSession(server.http_url) as http,
    ):
        async with http.get("/openapi.json") as response:
            document = await response.json()
        async with asyncio.timeout(40), tab(browser, tmp_path / "profile") as page:
            await page.open(f"{server.http_url}/docs#/AnalyticsService/AnalyticsService_LogMetric")
            for path, item in document["paths"].items():
                for operation in item.values():
                    shown = await page.text(f"#operations-AnalyticsService-{operation['operationId']}")
                    assert path in shown.replace("\u200b", "")
                    assert operation["summary"] in shown
            assert '"serviceName"' in await page.text("textarea.body-param__text")
            await page.click("button.execute")
            assert "200" in await page.text(".live-responses-table tbody .response-col_status")
            told = await page.text(".live-responses-table tbody .response-col_description")
            assert '"success": true' in told
            assert [url for url in page.asked if not url.startswith((f"{server.http_url}/", "data:"))] == []
            assert page.complaints == []
        async with http.get("/metrics") as response:
            assert "\ningestor_metrics_received_total 1.0\n" in await response.text()
