"""The disk journal with everything around it: crashes, restarts and databases that are not there."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from grpclib import GRPCError, Status
from ingestor_api.analytics.v1 import AckLevel, LogMetricRequest, LogMetricsRequest, Metric

from tests.gateway import gateway
from tests.server_process import ServerProcess, run, serve
from tests.stalling_proxy import stalling

JSON = {"Content-Type": "application/json"}
GOOD = {"serviceName": "s", "metricName": "m", "value": 1}


async def post(server: ServerProcess, body: object, path: str = "/v1/metrics") -> tuple[int, object]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{server.http_url}{path}", data=json.dumps(body).encode(), headers=JSON) as answer,
    ):
        return answer.status, await answer.json()


async def readiness(server: ServerProcess) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as http, http.get(f"{server.http_url}/readyz") as answer:
        return answer.status, await answer.json()


async def stored(database_url: str) -> list[float]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT value FROM metrics ORDER BY value")
    finally:
        await connection.close()
    return [row["value"] for row in rows]


async def until_stored(database_url: str, values: list[float]) -> None:
    async with asyncio.timeout(20):
        while await stored(database_url) != values:
            await asyncio.sleep(0.05)


async def test_what_was_acknowledged_survives_kill_9(open_path: Path, database_url: str) -> None:
    """Neither lost nor stored twice, although the database took nothing before; also the labels."""
    settings = {"database_url": database_url}
    async with serve(open_path, **settings) as server:
        assert (await post(server, {**GOOD, "value": 1, "ack": "ACK_LEVEL_COMMITTED"}))[0] == 200
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
            for value in (2, 3):
                assert (await post(server, {**GOOD, "value": value, "labels": {"a": "b"}}))[0] == 200
            await server.stop(signal.SIGKILL)
        await connection.close()
    async with serve(open_path, **settings):
        await until_stored(database_url, [1, 2, 3])


async def test_a_repetition_is_recognised_across_a_restart(open_path: Path, database_url: str) -> None:
    """While it waits in the journal, and when it is in the database."""
    body = {**GOOD, "requestId": "r"}
    async with serve(open_path, database_url=database_url, flush_interval="1h") as server:
        assert (await post(server, body))[0] == 200
        await server.stop(signal.SIGKILL)
    async with serve(open_path, database_url=database_url) as server:
        assert (await post(server, body))[0] == 200
        assert (await post(server, {**body, "ack": "ACK_LEVEL_COMMITTED"}))[0] == 200
    async with serve(open_path, database_url=database_url, data_dir=str(open_path / "other")) as server:
        assert (await post(server, {**body, "value": 2}))[0] == 409
        assert (await post(server, body))[0] == 200
        await until_stored(database_url, [1])


async def test_it_starts_without_its_database(open_path: Path, database_url: str) -> None:
    """Once it knows it: metrics are taken and kept, readiness says what is wrong, and all is stored later."""
    async with stalling(database_url) as (url, proxy):
        async with serve(open_path, database_url=url) as server:
            assert (await post(server, {**GOOD, "value": 1}))[0] == 200
            assert await server.stop(signal.SIGTERM) == 0
        await proxy.refuse()
        async with serve(open_path, database_url=url) as server:
            assert (await post(server, {**GOOD, "value": 2}))[0] == 200
            status, body = await readiness(server)
            assert (status, body["status"]) == (200, "degraded")
            assert body["pending"] == {"metrics": 1, "oldest_age_seconds": pytest.approx(1, abs=30)}
            await proxy.accept()
            await until_stored(database_url, [1, 2])
            async with asyncio.timeout(10):
                while (await readiness(server))[1]["status"] != "ready":
                    await asyncio.sleep(0.1)


async def test_the_first_start_needs_the_database(tmp_path: Path) -> None:
    """A wrong address should be told at once, not when the disk is full."""
    code, _, err = await run("serve", cwd=tmp_path, database_url="postgresql://nobody@127.0.0.1:1/nowhere")
    assert code == 3
    assert "127.0.0.1:1" in err


async def test_two_servers_do_not_share_a_journal(open_path: Path, database_url: str) -> None:
    """Exit code 5, with the other's pid."""
    async with serve(open_path, database_url=database_url) as server:
        code, _, err = await run("serve", cwd=open_path, database_url=database_url)
        assert code == 5
        assert str(server.process.pid) in err


async def test_a_journal_is_not_given_to_another_database(
    open_path: Path, database_url: str, another_url: str
) -> None:
    """While metrics wait for the first one; when all is stored there, it goes on with the other."""
    async with serve(open_path, database_url=database_url, flush_interval="1h") as server:
        assert (await post(server, GOOD))[0] == 200
        await server.stop(signal.SIGKILL)
    code, _, err = await run("serve", cwd=open_path, database_url=another_url)
    assert code == 5
    assert "ingestor journal adopt" in err
    async with serve(open_path, database_url=database_url) as server:
        await until_stored(database_url, [1])
        assert await server.stop(signal.SIGTERM) == 0
    async with serve(open_path, database_url=another_url) as server:
        assert (await post(server, {**GOOD, "value": 2, "ack": "ACK_LEVEL_COMMITTED"}))[0] == 200
    assert await stored(another_url) == [2]


async def test_what_the_database_does_not_take_stays_when_stopping(
    open_path: Path, database_url: str
) -> None:
    """Nothing is lost, so it ends with 0, and soon, since a database that fails need not be waited for."""
    async with (
        stalling(database_url) as (url, proxy),
        serve(open_path, database_url=url, flush_interval="1h") as server,
    ):
        assert (await post(server, GOOD))[0] == 200
        await proxy.refuse()
        assert await server.stop(signal.SIGTERM, within_s=15) == 0
        assert any("stay in the journal" in line["message"] for line in server.log)
    async with serve(open_path, database_url=database_url):
        await until_stored(database_url, [1])


@pytest.mark.parametrize("journal", ["disk", "memory"])
async def test_acknowledgements_over_both_protocols(database_url: str, journal: str) -> None:
    """COMMITTED can be read at once, without waiting for the ticker; what a journal can't give is refused."""
    async with gateway(database_url, journal=journal, flush_interval="1h") as running:
        committed = LogMetricsRequest([Metric("s", "m", 1.0)], ack=AckLevel.COMMITTED)
        assert (await running.stub.log_metrics(committed)).accepted == 1
        assert await stored(database_url) == [1]
        assert (await running.post("/v1/metrics", {**GOOD, "value": 2, "ack": "ACK_LEVEL_COMMITTED"}))[
            0
        ] == 200
        assert await stored(database_url) == [1, 2]
        journaled = LogMetricRequest("s", "m", 3.0, ack=AckLevel.JOURNALED)
        if journal == "disk":
            assert (await running.stub.log_metric(journaled)).success
        else:
            with pytest.raises(GRPCError, match="offers QUEUED and COMMITTED") as caught:
                await running.stub.log_metric(journaled)
            assert caught.value.status is Status.INVALID_ARGUMENT


async def test_rows_that_the_database_refuses_are_told_to_who_waits(database_url: str) -> None:
    """FAILED_PRECONDITION and 400 for one metric, a rejection in a batch; all of them are in dead_letters."""
    async with gateway(database_url) as running:
        await running.database.transactions.execute(
            "ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 10)"
        )
        with pytest.raises(GRPCError, match="dead_letters") as caught:
            await running.stub.log_metric(LogMetricRequest("s", "m", 11.0, ack=AckLevel.COMMITTED))
        assert caught.value.status is Status.FAILED_PRECONDITION
        bad = {**GOOD, "value": 12, "ack": "ACK_LEVEL_COMMITTED"}
        status, body = await running.post("/v1/metrics", bad)
        assert (status, body["code"]) == (400, 9)
        batch = {"metrics": [GOOD, {**GOOD, "value": 13}], "ack": "ACK_LEVEL_COMMITTED"}
        status, body = await running.post("/v1/metrics:batch", batch)
        assert (status, body["accepted"], [each["index"] for each in body["rejected"]]) == (200, "1", ["1"])
        assert await stored(database_url) == [1]
        assert running.count("ingestor_metrics_dead_lettered_total") == 3
        letters = await running.database.transactions.execute("SELECT count(*) FROM dead_letters")
        assert letters == 3


async def test_a_commit_that_takes_too_long_is_told(database_url: str) -> None:
    """504 and DEADLINE_EXCEEDED: whether it is stored is unknown."""
    async with gateway(database_url, commit_wait_max="100ms") as running:
        await running.database.transactions.execute("ALTER TABLE metrics RENAME TO away")
        status, body = await running.post("/v1/metrics", {**GOOD, "ack": "ACK_LEVEL_COMMITTED"})
        assert (status, body["code"]) == (504, 4)
        with pytest.raises(GRPCError) as caught:
            await running.stub.log_metric(LogMetricRequest("s", "m", 2.0, ack=AckLevel.COMMITTED))
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        await running.database.transactions.execute("ALTER TABLE away RENAME TO metrics")
        await until_stored(database_url, [1, 2])


@pytest.mark.parametrize(
    ("journal", "said"), [("disk", "kept in the journal"), ("memory", "may still be stored")]
)
async def test_who_waits_for_a_commit_as_the_server_stops_is_told(
    database_url: str, journal: str, said: str
) -> None:
    """Before the connections are closed. Otherwise nobody could tell whether to send it again, and it would be
    there twice."""
    async with gateway(database_url, journal=journal) as running:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
            over_http = asyncio.create_task(
                running.post("/v1/metrics", {**GOOD, "ack": "ACK_LEVEL_COMMITTED"})
            )
            metric = LogMetricRequest(service_name="s", metric_name="m", value=2, ack=AckLevel.COMMITTED)
            over_grpc = asyncio.create_task(running.stub.log_metric(metric))
            async with asyncio.timeout(10):
                while running.app.held_entries() < 2:
                    await asyncio.sleep(0.01)
            stopping = asyncio.create_task(running.app.stop(2))
            status, answer = await asyncio.wait_for(over_http, 10)
            assert status == 504
            assert "same request_id" in answer["message"]
            with pytest.raises(GRPCError, match=said) as told:
                await asyncio.wait_for(over_grpc, 10)
            assert told.value.status is Status.DEADLINE_EXCEEDED
            assert await stopping == (0 if journal == "disk" else 2)
        await connection.close()
