"""Faults of gateways, of the ways to them and of their disks, under load: every answer holds."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from ingestor.model.delivery import Ack
from tests.fault.conftest import Trial, rounds
from tests.fault.harness.gateway import gateway
from tests.fault.harness.load import Load, Target
from tests.fault.harness.requests import Mix
from tests.fault.harness.verdict import verdict
from tests.fault.harness.wire_proxy import wire_proxy

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(7_200)]
MIB = 1024**2
_JSON = {"Content-Type": "application/json"}


async def test_sigterm_under_load(trial: Trial) -> None:
    """It stops with 0, and what it has answered for is in the database or stored by the next start."""
    url = trial.postgresql.url(await trial.postgresql.fresh_database())
    async with gateway(trial.home / "gateway", url) as server:
        load = trial.load([server])
        async with load.running():
            for _ in range(rounds(2, 0.3)):
                await load.until_rows(1)
                await asyncio.sleep(trial.chance.uniform(0.0, 0.8))
                assert await server.terminate() == 0
                await server.start()
        await server.settled()
        trial.report(await verdict(load, url))
        assert not server.complaints()


async def test_answers_that_get_lost(trial: Trial) -> None:
    """Clients repeat what was not answered under the same request_id: each is stored once, and the repetition is
    answered."""
    url = trial.postgresql.url(await trial.postgresql.fresh_database())
    async with (
        gateway(trial.home / "gateway", url, flush_interval="50ms") as server,
        wire_proxy(server.target().grpc(), postgresql=False) as grpc,
        wire_proxy(server.target().http(), postgresql=False) as http,
    ):
        for proxy in (grpc, http):
            proxy.chance, proxy.answers_lost = trial.chance, 0.2
        way = Target(lambda: grpc.address, lambda: http.address)
        load = Load([way], Mix(with_id=1.0, sizes=(1, 5, 50)), trial.seed)
        async with load.running():
            await asyncio.sleep(3 * rounds(1, 0.3))
            for proxy in (grpc, http):
                proxy.answers_lost = 0.0
        counters = await server.settled()
        trial.report(await verdict(load, url))
        assert load.retries > 0
        assert counters["duplicates"] > 0


async def test_two_gateways_take_the_same_requests(trial: Trial) -> None:
    """At the same time, under one request_id: both answer, and it is stored once, whoever commits first."""
    url = trial.postgresql.url(await trial.postgresql.fresh_database())
    requests = 100 * rounds(1, 0.3)
    async with (
        gateway(trial.home / "one", url, flush_interval="200ms") as one,
        gateway(trial.home / "two", url, flush_interval="200ms") as two,
        aiohttp.ClientSession() as http,
    ):

        async def send(number: int, port: int) -> None:
            metrics = [{"serviceName": "s", "metricName": "m", "value": number * 3 + row} for row in range(3)]
            body = json.dumps({"metrics": metrics, "requestId": str(number)}).encode()
            async with http.post(
                f"http://127.0.0.1:{port}/v1/metrics:batch", data=body, headers=_JSON
            ) as answer:
                assert answer.status == 200

        ports = [each.target().http()[1] for each in (one, two)]
        for number in range(requests):
            await asyncio.gather(*(send(number, port) for port in ports))
        first, second = await one.settled(), await two.settled()
    assert first["duplicates"] + second["duplicates"] == 3 * requests
    connection = await asyncpg.connect(url)
    stored = await connection.fetch("SELECT value FROM metrics ORDER BY value")
    await connection.close()
    assert [row["value"] for row in stored] == list(map(float, range(3 * requests)))


async def test_a_disk_that_is_full_and_freed(trial: Trial, small_disk: Path) -> None:
    """The journal's: requests are refused and nothing of them is taken, what waits is stored, and it goes on by
    itself; kill -9 in between included."""
    name = await trial.postgresql.fresh_database()
    url = trial.postgresql.url(name)
    settings = {"data_dir": str(small_disk), "admission_wait": "100ms", "journal_retention": "0"}
    async with (
        gateway(trial.home / "gateway", url, **settings) as server,
        trial.postgresql.connected(name) as holder,
    ):
        load = trial.load([server], Mix(acks=[Ack.JOURNALED, Ack.QUEUED], sizes=(1, 50, 400)), pause_s=0.0)
        async with load.running():
            for number in range(rounds(2, 0.2)):
                await load.until_rows(1)
                async with holder.transaction():
                    await holder.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
                    ballast = small_disk / "ballast"
                    free = os.statvfs(small_disk)
                    ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 6 * MIB)))
                    async with asyncio.timeout(60):
                        while (await server.ready())["status"] != "not ready":
                            await asyncio.sleep(0.05)
                    if number % 2:
                        await server.kill()
                        await server.start()
                ballast.unlink()
        await server.settled(60)
        trial.report(await verdict(load, url))


async def test_a_database_that_is_restored_to_an_earlier_moment(trial: Trial) -> None:
    """What it lacks is still in the journal, and stored again: afterwards nothing is missing and nothing twice."""
    name = await trial.postgresql.fresh_database()
    url = trial.postgresql.url(name)
    async with gateway(trial.home / "gateway", url) as server:
        load = trial.load([server])
        async with load.running():
            await load.until_rows(100)
            await trial.postgresql.stop()
            await trial.postgresql.keep_copy("earlier")
            await trial.postgresql.start()
            await load.until_rows(500)
            await asyncio.sleep(1)
            await trial.postgresql.kill()
            await trial.postgresql.restore_copy("earlier")
            await trial.postgresql.start()
            await load.until_rows(100)
        await server.settled()
        trial.report(await verdict(load, url))
        assert any("not where it was left" in line["message"] for line in server.logs)
