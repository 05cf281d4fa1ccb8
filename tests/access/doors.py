"""A running gateway with keys, and how tests knock at it over either protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from grpclib import Status
from ingestor_api.analytics.v1 import (
    LogMetricsRequest,
    LogMetricsResponse,
    Metric,
)
from yarl import URL

from ingestor.access import Key, KeysFile
from tests.gateway import Gateway
from tests.transport.grpc.kit import connected, framed

PREFIX = "billing."
GOOD = "billing.api"
RPC = "/analytics.v1.AnalyticsService"
DENIED = (403, 7)


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


def row(service: str, name: str = "mixed") -> dict[str, Any]:
    return {"serviceName": service, "metricName": name, "value": 1}


def metrics(*services: str) -> dict[str, Any]:
    return {"metrics": [row(service) for service in services]}


async def services(running: Gateway) -> set[str]:
    """Whose metrics are taken: all are stored first."""
    while running.count("ingestor_metrics_pending"):
        await asyncio.sleep(0.01)
    return {service for _, service, *_ in await running.rows()}


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
