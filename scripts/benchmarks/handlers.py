"""One process with the same service behind several HTTP servers, to compare what lies before it:
`python handlers.py` prints their ports by name as JSON.

- `transcoded`: our HTTP side, as `ingestor serve` has it without keys.
- `by hand`: a handler written for LogMetric alone, on aiohttp's low-level server with our own server's settings.
- `by hand, as an application`: the same handler on aiohttp's Application and router, as most would write it.
- `bare echo`: a handler that reads the body and sends it back, on the same Application.

By hand means the same work: strict about types, unknown fields, times and enum values, the same betterproto2
message, the same service on the same memory queue, the same answer. What it does not do: ask who calls and from
which site's page, count its calls, read Grpc-Timeout and metadata, inflate bodies, refuse a key that stands twice,
or say which field is wrong. Behind the queue entries are thrown away, so that no database takes time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
import sys
from datetime import datetime
from typing import Any

import orjson
import uvloop
from aiohttp import web
from ingestor_api.analytics.v1 import AckLevel, LogMetricRequest

from ingestor.access import Gate
from ingestor.errors import Refusal
from ingestor.garbage import collected_aside
from ingestor.journal import MemoryJournal, QueueLimits, RequestIds
from ingestor.model import Ack, Limits, Outcome, Rules
from ingestor.permissions import NEEDS
from ingestor.service import AckPolicy, IngestorService
from ingestor.telemetry import Telemetry
from ingestor.transport import columns
from ingestor.transport.bounds import DEFAULT
from ingestor.transport.http import HttpServer
from ingestor.transport.http.connections import Connections
from ingestor.transport.observing import Observed
from ingestor.transport.rpc import ColumnOptions, Descriptors
from ingestor.transport.share import Share
from ingestor.transport.status import answer_to, json_of
from ingestor.transport.transcoding import Router

_BODY_BYTES_MAX = 4 * 1024**2
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
_FIELDS = frozenset({"serviceName", "metricName", "value", "time", "labels", "ack", "requestId"})
_LEVELS = {f"ACK_LEVEL_{level.name}": level for level in AckLevel}


def read_by_hand(body: bytes) -> LogMetricRequest:
    """LogMetric's request. Raises ValueError."""
    said = orjson.loads(body)
    if type(said) is not dict or not said.keys() <= _FIELDS:
        msg = "not an object of the known fields"
        raise ValueError(msg)
    value, time, labels, ack = said.get("value"), said.get("time"), said.get("labels"), said.get("ack")
    if value is not None and (type(value) not in (float, int) or not math.isfinite(value)):
        msg = "value is no number"
        raise ValueError(msg)
    if time is not None and (type(time) is not str or not _TIME.fullmatch(time)):
        msg = "time is no time"
        raise ValueError(msg)
    if labels is not None and (
        type(labels) is not dict or not all(type(text) is str for text in labels.values())
    ):
        msg = "labels are no strings by name"
        raise ValueError(msg)
    if ack is not None and ack not in _LEVELS:
        msg = "ack is no level"
        raise ValueError(msg)
    return LogMetricRequest(
        service_name=_text(said, "serviceName"),
        metric_name=_text(said, "metricName"),
        value=None if value is None else float(value),
        time=None if time is None else datetime.fromisoformat(time),
        labels=labels or {},
        ack=AckLevel.UNSPECIFIED if ack is None else _LEVELS[ack],
        request_id=_text(said, "requestId"),
    )


def _text(said: dict[str, Any], name: str) -> str:
    text = said.get(name, "")
    if type(text) is not str:
        msg = f"{name} is no string"
        raise ValueError(msg)
    return text


class ByHand:
    """The handler."""

    def __init__(self, service: IngestorService) -> None:
        self._service = service

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._service.log_metric(read_by_hand(await request.read()))
        except ValueError as error:
            return web.json_response({"code": 3, "message": str(error)}, status=400)
        except Refusal as refusal:
            return web.Response(
                status=answer_to(refusal).http, text=json_of(refusal), content_type="application/json"
            )
        return web.Response(
            body=orjson.dumps({"success": answer.success}), headers={"Content-Type": "application/json"}
        )


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/json")


async def _forget(journal: MemoryJournal) -> None:
    while True:
        await journal.wait(5_000, 1.0)
        if entries := await journal.read(20_000):
            await journal.settle(entries, Outcome())


async def _listening(runner: web.BaseRunner) -> int:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port: int = runner.addresses[0][1]
    return port


def _application(handler: Any) -> web.BaseRunner:
    application = web.Application(client_max_size=_BODY_BYTES_MAX)
    application.router.add_post("/v1/metrics", handler)
    return web.AppRunner(application, access_log=None)


async def main() -> None:
    """Serves until its standard input ends."""
    telemetry, requests = Telemetry(), RequestIds()
    limits = QueueLimits(500_000, 128 * 1024**2, 32 * 1024**2, 1.0)
    journal = MemoryJournal(limits, requests, on_taken=telemetry.received.inc)
    reads: Any = None  # nobody asks for it
    service = IngestorService(
        journal, requests, Rules(Limits()), acks=AckPolicy(Ack.QUEUED, 30.0), reads=reads, telemetry=telemetry
    )
    descriptors = Descriptors.of_package("ingestor_api")
    rpcs = descriptors.bind(service, ColumnOptions(columns.ReferenceDecoder, Limits().rows_max))

    def observe(path: str, protocol: str) -> Observed:
        return telemetry.calls.count(path, protocol).ended

    transcoded = HttpServer(
        Router(rpcs, descriptors.pool), {}, body_bytes_max=_BODY_BYTES_MAX, observe=observe, gate=Gate(NEEDS)
    )
    by_hand = ByHand(service)
    forgetting = asyncio.create_task(_forget(journal))
    ports = {
        "transcoded": await transcoded.start("127.0.0.1", 0),
        "by hand": await _listening(web.ServerRunner(Connections(by_hand, Share(DEFAULT)))),
        "by hand, as an application": await _listening(_application(by_hand)),
        "bare echo": await _listening(_application(_echo)),
    }
    gc.collect()
    async with collected_aside(lambda: journal.held_entries):
        print(json.dumps(ports), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    forgetting.cancel()
    await transcoded.close()


if __name__ == "__main__":
    uvloop.run(main())
