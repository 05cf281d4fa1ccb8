"""What tests of the operators' commands share: metrics that a server is given, and what it says it has done."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from tests.server_process import ServerProcess

JSON = {"Content-Type": "application/json"}
GOOD = {"serviceName": "s", "metricName": "m", "value": 1}


async def post(server: ServerProcess, *values: float, service: str = "s") -> None:
    metrics = [{**GOOD, "serviceName": service, "value": value, "labels": {"a": "ü"}} for value in values]
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{server.http_url}/v1/metrics:batch", data=json.dumps({"metrics": metrics}), headers=JSON
        ) as answer,
    ):
        assert answer.status == 200


async def until(server: ServerProcess, line: str) -> None:
    async with asyncio.timeout(20), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{server.http_url}/metrics") as answer:
                if line in await answer.text():
                    return
            await asyncio.sleep(0.05)
