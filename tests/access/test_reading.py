"""What a key that is limited to some services can read, tried over both protocols."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError, Status
from ingestor_api.analytics.v1 import (
    ListSeriesRequest,
    LogMetricsRequest,
    Metric,
    QueryMetricsRequest,
    TailMetricsRequest,
)
from yarl import URL

from ingestor.access import KeysFile
from tests.access.kit import make, revoked
from tests.gateway import Gateway, gateway

MINE = "billing.api"
FOREIGN = ("payments", "billing", "x.billing.", "Billing.api", "b\u0456lling.api")


class Reading:
    """A gateway with metrics of one's own and foreign services, and a key for the former."""

    def __init__(self, running: Gateway, file: KeysFile) -> None:
        self.running = running
        self.file = file
        self.key, text = make("read:billing.")
        self.writer, writer_text = make("write")
        self.sent = {"authorization": f"Bearer {text}"}
        self.writing = {"authorization": f"Bearer {writer_text}"}
        file.change(lambda _: [self.key, self.writer])

    async def write(self) -> None:
        """One metric of each service, committed."""
        rows = [Metric(service, "m", 1.0) for service in (*FOREIGN, MINE)]
        await self.running.stub.log_metrics(LogMetricsRequest(rows, ack=3), metadata=self.writing)  # type: ignore[arg-type]

    async def get(self, path: str) -> tuple[int, Any]:
        url = URL(str(self.running.http._base_url).rstrip("/") + path, encoded=True)
        async with self.running.http.get(url, headers=self.sent) as response:
            return response.status, await response.json()


@pytest.fixture(params=["true", "false"], ids=["lane", "grpclib"])
async def reading(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> AsyncIterator[Reading]:
    file = KeysFile(tmp_path / "keys")
    file.change(lambda _: [make()[0]])
    async with gateway(database_url, keys_file=str(file.path), grpc_lane=request.param) as running:
        made = Reading(running, file)
        await running.app._trust.keys.look()
        await made.write()
        yield made


def escaped(name: str) -> str:
    """Each byte as %XX."""
    return "".join(f"%{byte:02X}" for byte in name.encode())


async def test_no_other_service_is_queried(reading: Reading) -> None:
    """By path, escaped or not, by parameter, or by message."""
    stub = reading.running.stub
    status, told = await reading.get(f"/v1/services/{MINE}/metrics/m:query")
    assert (status, len(told["points"])) == (200, 1)
    for name in FOREIGN:
        for path in (
            f"/v1/services/{escaped(name)}/metrics/m:query",
            f"/v1/services/{escaped(name)}/metrics/m:query?aggregation=sum",
        ):
            status, told = await reading.get(path)
            assert (status, told["code"]) == (403, 7), path
        # The path wins over parameters, or they are refused: the answer is never the other's.
        status, told = await reading.get(f"/v1/services/{escaped(name)}/metrics/m:query?service_name={MINE}")
        assert status in {400, 403}
        status, told = await reading.get(f"/v1/services/{MINE}/metrics/m:query?service_name={escaped(name)}")
        assert status in {200, 400}
        assert len(told.get("points", [])) <= 1
        with pytest.raises(GRPCError) as caught:
            await stub.query_metrics(QueryMetricsRequest(name, "m"), metadata=reading.sent)
        assert caught.value.status is Status.PERMISSION_DENIED


async def test_no_other_service_is_listed(reading: Reading) -> None:
    """Whatever prefix is asked for, and with the token of somebody who may see more."""
    stub, running = reading.running.stub, reading.running
    for prefix in ("", "b", "bill", "billing.", "payments", "x"):
        status, told = await reading.get(f"/v1/series?servicePrefix={prefix}")
        assert status == 200
        listed = {each["serviceName"] for each in told["series"]}
        answer = await stub.list_series(ListSeriesRequest(service_prefix=prefix), metadata=reading.sent)
        assert listed == {each.service_name for each in answer.series}
        assert listed == ({MINE} if MINE.startswith(prefix) else set())
    reader, text = make("read")
    reading.file.change(lambda keys: [*keys.all, reader])
    await running.app._trust.keys.look()
    page = await stub.list_series(ListSeriesRequest(page_size=1), metadata={"x-api-key": text})
    rest = await stub.list_series(ListSeriesRequest(page_token=page.next_page_token), metadata=reading.sent)
    assert {each.service_name for each in rest.series} <= {MINE}


async def test_no_other_service_is_tailed(reading: Reading) -> None:
    """A tail of all shows one's own alone; one of another's is refused; a revoked key ends it, though nothing is
    written that it could tell."""
    stub = reading.running.stub
    for name in FOREIGN:
        with pytest.raises(GRPCError) as caught:
            await anext(aiter(stub.tail_metrics(TailMetricsRequest(name), metadata=reading.sent)))
        assert caught.value.status is Status.PERMISSION_DENIED
        status, told = await reading.get(f"/v1/metrics:tail?serviceName={escaped(name)}")
        assert (status, told["code"]) == (403, 7)
    async with asyncio.timeout(20):
        answers = aiter(stub.tail_metrics(TailMetricsRequest(), metadata=reading.sent))
        async with reading.running.http.get("/v1/metrics:tail", headers=reading.sent) as lines:
            await anext(answers)
            await lines.content.readline()
            await reading.write()
            shown: list[str] = []
            while not shown:
                shown += [metric.service_name for metric in (await anext(answers)).metrics]
            lined: list[str] = []
            while not lined:
                told = json.loads(await lines.content.readline())
                lined += [metric["serviceName"] for metric in told["result"]["metrics"]]
            assert (shown, lined) == ([MINE], [MINE])
            reading.file.change(lambda _: [revoked(reading.key), reading.writer])
            await reading.running.app._trust.keys.look()
            async with asyncio.timeout(7):  # less than it takes until each is told that nothing happens
                with pytest.raises(GRPCError) as caught:
                    while True:
                        assert not (await anext(answers)).metrics
                assert caught.value.status is Status.UNAUTHENTICATED
                while "error" not in (told := json.loads(await lines.content.readline())):
                    assert not told["result"]["metrics"]
                assert told["error"]["code"] == 16
