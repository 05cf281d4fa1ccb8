"""curl against `ingestor serve`, as someone tries an HTTP API that they have just heard of."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clients.conftest import Served

_CURL = shutil.which("curl")

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(_CURL is None, reason="curl is not installed"),
]


class Said(NamedTuple):
    """What curl printed: the status, headers by lower-case name, and the body."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def curl(served: Served, path: str, *arguments: str, stdin: bytes = b"") -> Said:
    """Runs `curl ARGUMENTS URL`."""
    assert _CURL is not None
    process = await asyncio.create_subprocess_exec(
        *(_CURL, "--silent", "--show-error", "--max-time", "30", "--include"),
        *(*arguments, f"{served.server.http_url}{path}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode == 0, err.decode()
    head, _, body = out.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    named = (line.split(": ", 1) for line in lines)
    return Said(int(first.split()[1]), {name.lower(): value for name, value in named}, body)


def metric(service: str, value: float | None, **more: Any) -> dict[str, Any]:
    return {"serviceName": service, "metricName": "m", **({} if value is None else {"value": value}), **more}


async def test_a_metric(served: Served) -> None:
    """By `curl -d`, whose media type says form: with its labels it is a row."""
    said = await curl(served, "/v1/metrics", "-d", json.dumps(metric("one", 1.5, labels={"region": "eu"})))
    assert (said.status, said.json) == (200, {"success": True})
    assert said.headers["content-type"] == "application/json"
    assert await served.rows("one", 1) == [("m", 1.5, '{"region": "eu"}')]


async def test_a_batch(served: Served) -> None:
    """The good ones are stored, the bad one is named by its place."""
    batch = {"metrics": [metric("batch", 1), metric("batch", None), metric("batch", 2)]}
    said = await curl(served, "/v1/metrics:batch", "--json", json.dumps(batch))
    assert said.status == 200
    assert said.json["accepted"] == "2"
    [rejected] = said.json["rejected"]
    assert rejected["index"] == "1"
    assert "value" in rejected["reason"]
    assert [row[1] for row in await served.rows("batch", 2)] == [1, 2]


@pytest.mark.parametrize(("service", "path"), [(".", "%2E"), ("..", "%2E%2E"), ("..", "..")])
async def test_a_name_of_dots(served: Served, service: str, path: str) -> None:
    """It is stored, and found where curl leaves the path as it is."""
    said = await curl(
        served, "/v1/metrics", "--json", json.dumps(metric(service, 4, ack="ACK_LEVEL_COMMITTED"))
    )
    assert said.status == 200
    said = await curl(served, f"/v1/services/{path}/metrics/m:query?aggregation=max", "--path-as-is")
    assert (said.status, [point["value"] for point in said.json["points"]]) == (200, [4.0])
    # What it is otherwise: another path.
    assert (await curl(served, "/v1/services/../metrics/m:query")).status == 404


async def test_gzip(served: Served) -> None:
    """A body in gzip is a body; and what is large comes back in gzip where it is asked for."""
    batch = gzip.compress(json.dumps({"metrics": [metric("gzip", each) for each in range(500)]}).encode())
    how = ("--data-binary", "@-", "--header", "Content-Encoding: gzip")
    said = await curl(served, "/v1/metrics:batch", *how, stdin=batch)
    assert (said.status, said.json) == (200, {"accepted": "500", "rejected": []})
    assert [row[1] for row in await served.rows("gzip", 500)] == list(range(500))
    document = await curl(served, "/openapi.json", "--compressed")
    assert document.headers["content-encoding"] == "gzip"
    assert document.json["openapi"].startswith("3.1")


async def test_lines_of_json(served: Served, open_path: Path) -> None:
    """A file of batches, one a line, is answered line by line; a bad one ends it after the answers before it."""
    lines = [{"metrics": [metric("lines", 10 * size + each) for each in range(size)]} for size in (1, 2, 3)]
    bad = {"metrics": [metric("lines", None)]}
    file = open_path / "batches.ndjson"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, bad, lines[0]]))
    said = await curl(served, "/v1/metrics:stream", "--data-binary", f"@{file}")
    assert said.status == 200
    assert said.headers["content-type"] == "application/x-ndjson"
    *answers, last = [json.loads(line) for line in said.body.splitlines()]
    assert answers == [{"result": {"accepted": str(size), "rejected": []}} for size in (1, 2, 3)]
    assert last["error"]["code"] == 3
    assert [row[1] for row in await served.rows("lines", 6)] == [10, 20, 21, 30, 31, 32]


async def test_head_and_options(served: Served) -> None:
    """HEAD has the headers of GET, where GET is; OPTIONS says what a path takes."""
    head = await curl(served, "/openapi.json", "--head")
    full = await curl(served, "/openapi.json")
    assert (head.status, head.body) == (200, "")
    assert head.headers["content-length"] == full.headers["content-length"] == str(len(full.body.encode()))
    assert head.headers["etag"] == full.headers["etag"]
    same = await curl(served, "/openapi.json", "--header", f"If-None-Match: {full.headers['etag']}")
    assert (same.status, same.body) == (304, "")
    options = await curl(served, "/v1/metrics", "--request", "OPTIONS")
    assert (options.status, options.headers["allow"], options.body) == (204, "OPTIONS, POST", "")
    refused = await curl(served, "/v1/metrics")
    assert (refused.status, refused.headers["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize(
    ("path", "body", "told", "named"),
    [
        ("/v1/metrics", {"value": None}, (400, 3), "value"),
        ("/v1/metrics", {"timestamp": "2026-01-01T00:00:00Z"}, (400, 3), "timestamp"),
        ("/v1/metrics", {"ack": "ACK_LEVEL_NO"}, (400, 3), "ack"),
        ("/v1/metric", {}, (404, 5), "/v1/metric"),
    ],
)
async def test_an_error_says_what_is_wrong(
    served: Served, path: str, body: dict[str, Any], told: tuple[int, int], named: str
) -> None:
    """As google.rpc.Status, with the field; what comes behind it is stored, and nothing of it."""
    service = f"bad {named}"
    said = await curl(served, path, "-d", json.dumps({**metric(service, 1), **body}))
    assert (said.status, said.json["code"]) == told
    assert named in said.json["message"]
    if told[0] == 400:
        [details] = said.json["details"]
        assert details["@type"] == "type.googleapis.com/google.rpc.BadRequest"
        assert [each["field"] for each in details["fieldViolations"]] == [named]
    good = metric(service, 2, ack="ACK_LEVEL_COMMITTED")
    assert (await curl(served, "/v1/metrics", "-d", json.dumps(good))).status == 200
    assert [row[1] for row in await served.rows(service, 1)] == [2]


async def test_a_deadline(served: Served) -> None:
    """While nothing is committed, who waits for that is told 504 in time; here it is stored all the same."""
    body = json.dumps(metric("late", 1, ack="ACK_LEVEL_COMMITTED"))
    async with served.nothing_committed():
        said = await curl(served, "/v1/metrics", "-d", body, "--header", "Grpc-Timeout: 200m")
    assert (said.status, said.json["code"]) == (504, 4)
    assert [row[1] for row in await served.rows("late", 1)] == [1]
