"""The main job from outside: the server as a process, load from outside, rows compared one by one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from ingestor.loadgen import LoadPlan, LoadReport, run, verify
from tests.server_process import ServerProcess, serve

METRICS = 100_000


def plan(server: ServerProcess, **options: object) -> LoadPlan:
    return LoadPlan.model_validate(
        {
            "grpc": f"127.0.0.1:{server.grpc_port}",
            "http": f"http://127.0.0.1:{server.http_port}",
            "protocol": "both",
            "count": METRICS,
            "batch": 100,
            "labels": 2,
            **options,
        }
    )


async def test_every_acknowledged_metric_is_stored_exactly_once(open_path: Path, database_url: str) -> None:
    """100,000 metrics over both protocols; time, names, value and labels of each row are what was sent."""
    async with serve(open_path, database_url=database_url) as server:
        load = plan(server)
        report = await run(load)
        verification = await verify(database_url, load, report)
        assert await server.stop(signal.SIGTERM) == 0
    assert report.total.acknowledged == METRICS
    assert min(results.acknowledged for results in report.protocols.values()) > 0
    assert verification.ok, verification
    assert verification.labels_checked


async def test_sigterm_under_load_loses_nothing(open_path: Path, database_url: str) -> None:
    """What was acknowledged before and during the drain is stored once; extras come only from requests that got
    no answer; the server ends with 0."""
    async with serve(open_path, database_url=database_url) as server:
        load = plan(server, count=10 * METRICS, reconnect_s=1)
        loading = asyncio.create_task(run(load))
        connection = await asyncpg.connect(database_url)
        while await connection.fetchval("SELECT count(*) FROM metrics") < METRICS // 5:
            await asyncio.sleep(0.05)
        await connection.close()
        assert await server.stop(signal.SIGTERM) == 0
        report: LoadReport = await asyncio.wait_for(loading, 40)
    verification = await verify(database_url, load, report)
    assert verification.ok, verification
    assert METRICS // 5 <= report.total.acknowledged < load.metrics_planned  # type: ignore[operator]


async def post(server: ServerProcess, number: int) -> None:
    async with aiohttp.ClientSession() as http:
        body = f'{{"serviceName":"s","metricName":"m","value":{number}}}'.encode()
        async with http.post(f"http://127.0.0.1:{server.http_port}/v1/metrics", data=body) as answer:
            assert answer.status == 200


def postgres_processes(data_dir: Path) -> list[int]:
    """Processes whose working directory is this cluster's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().is_relative_to(data_dir):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc to look for leftovers")
async def test_kill_9_leaves_no_postgresql_and_the_next_start_serves(open_path: Path) -> None:
    """The embedded database dies with the server; five seconds after the next start everything that was
    committed can be read and more can be written."""
    data_dir = open_path / "data"
    options = {"data_dir": str(data_dir), "flush_interval": "10ms"}
    async with serve(open_path, **options) as server:
        for number in range(3):
            await post(server, number)
        async with aiohttp.ClientSession() as http:
            while True:
                async with http.get(f"http://127.0.0.1:{server.http_port}/metrics") as page:
                    if "\ningestor_metrics_committed_total 3.0\n" in await page.text():
                        break
        assert postgres_processes(data_dir)
        assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    started = time.monotonic()
    async with serve(open_path, **options) as server:
        assert time.monotonic() - started < 5
        await post(server, 3)
        assert await server.stop(signal.SIGTERM) == 0
    assert postgres_processes(data_dir) == []
    async with serve(open_path, **options) as server:
        line = await server.until_logged("storing in")
        assert "partitioned by week" in line["message"]
        assert await server.stop(signal.SIGTERM) == 0


async def test_the_embedded_database_is_started_again_when_it_dies(open_path: Path) -> None:
    """What was acknowledged meanwhile is kept and stored; nobody has to restart the server."""
    data_dir = open_path / "data"
    async with serve(open_path, data_dir=str(data_dir), flush_interval="1s") as server:
        await post(server, 0)
        for process in postgres_processes(data_dir):
            os.kill(process, signal.SIGKILL)
        await server.until_logged("it is started again")
        await post(server, 1)
        assert await server.stop(signal.SIGTERM) == 0
    assert not [line for line in server.log if line["level"] == "ERROR" and "not stored" in line["message"]]
