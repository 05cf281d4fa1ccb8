"""Nothing that hangs, on either side of the server, keeps it from telling the truth and from ending in time."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from grpclib import GRPCError, Status
from ingestor_api.analytics.v1 import AckLevel, LogMetricRequest
from loguru import logger

from ingestor import storing
from ingestor.journal.files import File
from ingestor.journal.kernel_sync import KernelSync
from ingestor.journal.log import SegmentLog
from ingestor.journal.records import Record
from ingestor.storage import catalogue
from ingestor.storage.database import Database
from ingestor.storage.opening import open_database
from ingestor.telemetry import logs
from tests.gateway import Gateway, gateway
from tests.journal.disk_kit import needs_kernel
from tests.server_process import serve
from tests.stalling_proxy import stalling

GOOD = b'{"serviceName":"s","metricName":"m","value":1}'
COMMITTED = b'{"serviceName":"s","metricName":"m","value":1,"ack":"ACK_LEVEL_COMMITTED"}'


async def until_locked(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Until somebody waits for a lock."""
    async with asyncio.timeout(15):
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)


async def readiness(running: Gateway) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=10)
    async with running.http.get("/readyz", timeout=timeout) as answer:
        return answer.status, (await answer.json())["checks"]["database"]


async def test_readiness_answers_while_the_database_does_not(database_url: str) -> None:
    """Soon, with the reason, however many ask; and it is ready again as soon as the database answers."""
    async with stalling(database_url) as (url, proxy), gateway(url, journal="memory") as running:
        assert await readiness(running) == (200, "ok")
        await asyncio.sleep(1.1)  # past what a look at the database is good for
        proxy.flowing.clear()
        started = time.monotonic()
        answers = await asyncio.gather(*(readiness(running) for _ in range(20)))
        assert time.monotonic() - started < 8
        assert set(answers) == {(503, "the database did not answer within 2 s")}
        proxy.flowing.set()
        deadline = time.monotonic() + 20
        while (await readiness(running))[0] != 200:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


async def test_stopping_ends_in_time_while_the_database_does_not_answer(database_url: str) -> None:
    """With what could not be stored counted, whatever the driver makes of being cancelled."""
    async with stalling(database_url) as (url, proxy), gateway(url, journal="memory") as running:
        await running.stub.log_metric(LogMetricRequest("s", "m", 1.0))
        while not running.count("ingestor_metrics_committed_total"):
            await asyncio.sleep(0.01)
        proxy.flowing.clear()
        await running.stub.log_metric(LogMetricRequest("s", "m", 2.0))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        assert await running.app.stop(1) == 1
        assert time.monotonic() - started < 15


async def test_stopping_ends_in_time_while_the_times_of_series_are_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the transaction of a task of its own, which waits for a lock that somebody holds."""
    monkeypatch.setattr(storing, "_CATCH_UP_EVERY_S", 0.05)
    async with gateway(database_url) as running:
        for _ in range(2):
            assert (await running.post("/v1/metrics", COMMITTED))[0] == 200
        connection = await asyncpg.connect(database_url)
        await connection.execute("BEGIN; LOCK TABLE metric_series")
        monkeypatch.setattr(catalogue, "LAG_S", 0.0)
        await until_locked(connection)
        assert await asyncio.wait_for(running.app.stop(1), 15) == 0
        await connection.close()


async def test_stopping_ends_in_time_whatever_a_task_does_then(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that goes on although it is told to end, by a mistake of ours or the driver's: the journal is ended all
    the same."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def purge(database: Database, window_s: float) -> int:
        begun.set()
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()
        return 0

    monkeypatch.setattr(Database, "purge", purge)
    monkeypatch.setattr(storing, "_PURGE_EVERY_S", 0.01)
    monkeypatch.setattr(storing, "_ANSWER_S", 0.1)
    async with gateway(database_url, flush_interval="1h") as running:
        assert (await running.post("/v1/metrics", GOOD))[0] == 200
        await asyncio.wait_for(begun.wait(), 10)
        assert await asyncio.wait_for(running.app.stop(1), 10) == 0
        assert running.count("ingestor_metrics_committed_total") == 1
        over.set()


async def test_stopping_ends_in_time_while_a_connection_is_begun(database_url: str, tmp_path: Path) -> None:
    """To a database that was away, is there, and does not answer any more: not even that it has given up."""
    async with stalling(database_url) as (url, proxy):
        async with gateway(url, data_dir=tmp_path) as running:
            assert (await running.post("/v1/metrics", COMMITTED))[0] == 200
        await proxy.refuse()
        connection = await asyncpg.connect(database_url)
        async with gateway(url, data_dir=tmp_path) as running:
            assert (await running.post("/v1/metrics", GOOD))[0] == 200
            await connection.execute("BEGIN; LOCK TABLE ingestor_migrations")
            await proxy.accept()
            await until_locked(connection)
            proxy.flowing.clear()
            assert await asyncio.wait_for(running.app.stop(1), 15) == 0
            assert running.app.held_entries() == 1
        await connection.close()


@pytest.mark.parametrize("synced_by", [pytest.param("the kernel", marks=needs_kernel), "the thread"])
async def test_who_waits_for_a_disk_that_hangs_is_told_as_the_server_stops(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced_by: str
) -> None:
    """Over either protocol, before the connections are closed. When the disk works on, the server ends, and all of
    it is kept, that which was acknowledged before as well."""
    hung, goes_on = threading.Event(), threading.Event()
    real, appended = KernelSync.begin, SegmentLog.append

    def append(log: SegmentLog, records: Sequence[Record]) -> None:
        hung.set()
        assert goes_on.wait(30)
        appended(log, records)

    def begin(syncs: KernelSync, file: File) -> asyncio.Future[None] | None:
        async def later() -> None:
            await asyncio.to_thread(goes_on.wait, 30)
            if (sync := real(syncs, file)) is not None:
                await sync

        hung.set()
        return asyncio.ensure_future(later())

    async with gateway(database_url, data_dir=tmp_path) as running:
        assert (await running.post("/v1/metrics", COMMITTED))[0] == 200
        if synced_by == "the kernel":
            monkeypatch.setattr(KernelSync, "begin", begin)
        else:
            monkeypatch.setattr(SegmentLog, "begin", lambda *_: None)
            monkeypatch.setattr(SegmentLog, "append", append)
        metric = LogMetricRequest("s", "m", 2.0, ack=AckLevel.COMMITTED)
        over_grpc = asyncio.create_task(running.stub.log_metric(metric))
        await asyncio.to_thread(hung.wait, 10)
        over_http = [asyncio.create_task(running.post("/v1/metrics", body)) for body in (GOOD, COMMITTED)]
        queued = LogMetricRequest("s", "m", 3.0, ack=AckLevel.QUEUED)
        assert (await running.stub.log_metric(queued)).success
        while running.app.held_entries() < 3:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(running.app.stop(1))
        with pytest.raises(GRPCError, match="may still be stored") as told:
            await asyncio.wait_for(over_grpc, 10)
        assert told.value.status is Status.DEADLINE_EXCEEDED
        for each in over_http:
            status, answer = await asyncio.wait_for(each, 10)
            assert status == 504
            assert "may still be stored" in answer["message"]
        goes_on.set()
        assert await asyncio.wait_for(stopping, 15) == 0
    async with gateway(database_url, data_dir=tmp_path) as running, asyncio.timeout(10):
        while len(await running.rows()) < 5:
            await asyncio.sleep(0.01)


async def test_a_stuck_client_costs_no_metrics(database_url: str) -> None:
    """A request that never ends takes its share of DRAIN_TIMEOUT; the queue is stored meanwhile all the same."""
    async with gateway(database_url, flush_interval="1h") as running:
        assert (await running.post("/v1/metrics", GOOD))[0] == 200
        _, writer = await asyncio.open_connection(running.host, running.http_port)
        writer.write(b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.1)
        started = time.monotonic()
        assert await running.app.stop(3) == 0
        assert time.monotonic() - started < 6
        assert running.count("ingestor_metrics_committed_total") == 1
        writer.close()


async def test_a_full_queue_is_flushed_although_nobody_waits(database_url: str) -> None:
    """Refused callers want room too: with ADMISSION_WAIT=0 a queue smaller than a batch is emptied at once."""
    flags: dict[str, Any] = {
        "journal": "memory",
        "queue_capacity": 2,
        "admission_wait": "0",
        "flush_interval": "1h",
    }
    async with gateway(database_url, **flags) as running:
        statuses = [(await running.post("/v1/metrics", GOOD))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        while not running.count("ingestor_metrics_committed_total"):
            await asyncio.sleep(0.01)
        assert (await running.post("/v1/metrics", GOOD))[0] == 200


@pytest.fixture
def _own_logs() -> Iterator[None]:
    yield
    logs.configure("text", "INFO")


@pytest.mark.usefixtures("_own_logs")
def test_a_traceback_shows_no_values() -> None:
    """In either format: what a failing call held was a request, or a secret."""
    for log_format in ("text", "json"):
        stream = io.StringIO()
        logs.configure(log_format, "INFO", stream)
        try:
            _fail("".join(["hunter", "2"]))
        except ZeroDivisionError as error:
            logger.opt(exception=error).error("failed")
        assert "ZeroDivisionError" in stream.getvalue()
        assert "hunter2" not in stream.getvalue()


def _fail(secret: str) -> float:
    return len(secret) / 0


async def test_endless_load_on_a_stalled_database_is_refused_and_does_not_grow(
    database_url: str, open_path: Path
) -> None:
    """What waits is bounded in rows and in bytes: after the queue is full, requests are refused, and the process
    takes no more memory than it did then."""
    async with stalling(database_url) as (url, proxy):
        limits = {
            "journal": "memory",
            "queue_capacity": "20000",
            "queue_bytes": "4MiB",
            "admission_wait": "50ms",
            "drain_timeout": "1s",
        }
        async with serve(open_path, database_url=url, **limits) as server:
            proxy.flowing.clear()
            body = json.dumps({"metrics": [json.loads(GOOD)] * 1_000}).encode()
            async with aiohttp.ClientSession(server.http_url) as http:

                async def load(requests: int) -> Counter[int]:
                    statuses = Counter[int]()
                    for _ in range(requests):
                        async with http.post("/v1/metrics:batch", data=body) as answer:
                            statuses[answer.status] += 1
                    return statuses

                first = sum(await asyncio.gather(*(load(20) for _ in range(8))), Counter())
                before = server.rss_bytes()
                then = sum(await asyncio.gather(*(load(60) for _ in range(8))), Counter())
            assert 0 < first[200] <= 20
            assert set(first) == {200, 429}
            assert set(then) == {429}
            assert server.rss_bytes() - before < 24 * 1024**2


async def test_an_opening_that_is_given_up_leaves_nothing_in_the_line_for_a_lock(database_url: str) -> None:
    """A backend that waits for one does not notice that its client is gone; who comes behind it waits, too."""
    await (await open_database(database_url)).close(5)
    connection, looks = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    await connection.execute("BEGIN; LOCK TABLE ingestor_migrations")
    opening = asyncio.create_task(open_database(database_url))
    await until_locked(looks)
    opening.cancel()
    await asyncio.wait([opening], timeout=10)
    assert opening.cancelled()
    async with asyncio.timeout(5):
        while await looks.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.05)
    await connection.close()
    await looks.close()
