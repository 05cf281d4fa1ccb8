"""An rpc is an annotation and a method: the example of ARCHITECTURE.md, taken from there, is added and called."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.reflection.v1 import reflection_pb2 as reflection
from ingestor_api.analytics.v1 import LogMetricRequest

from ingestor import service
from tests.gateway import Gateway, gateway

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "api_with_one_more_rpc"
RPC = "analytics.v1.AnalyticsService/CheckMetric"
GOOD = {"serviceName": "s", "metricName": "m", "value": 1}
PROBLEMS = ["metric_name: must not be empty", "value: is required"]


def example(language: str) -> list[str]:
    """The section's blocks in this language."""
    section = (ROOT / "ARCHITECTURE.md").read_text().split("### Adding an rpc\n")[1].split("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


async def run(script: Path) -> None:
    """Without a word of complaint."""
    process = await asyncio.create_subprocess_exec(sys.executable, str(script))
    assert await process.wait() == 0


async def generated(checkout: Path) -> Any:
    """The API with the example's rpc, as the project's scripts lint and generate it, importable as PACKAGE."""
    for folder in ("proto", "scripts"):
        shutil.copytree(ROOT / folder, checkout / folder)
    proto = checkout / "proto" / "analytics" / "v1" / "analytics.proto"
    rpc, messages = example("proto")
    start = "service AnalyticsService {\n"
    before, found, after = proto.read_text().partition(start)
    assert found
    proto.write_text(f"{before}{start}{rpc}\n{after}\n{messages}")
    await asyncio.gather(*(run(checkout / "scripts" / name) for name in ("gen.py", "lint_proto.py")))
    # By a name of its own, since this process has the other one.
    (checkout / "gen" / "ingestor_api").rename(checkout / "gen" / PACKAGE)
    return importlib.import_module(f"{PACKAGE}.analytics.v1")


def with_the_method(api: Any) -> type[service.IngestorService]:
    """The service with the example's method, on the new base."""
    [method] = example("python")
    names = {**vars(service), **{name: getattr(api, name) for name in api.__all__}}
    body: dict[str, Any] = {"__mapping__": api.AnalyticsServiceBase.__mapping__}
    exec(textwrap.dedent(method), names, body)
    return type("Service", (service.IngestorService, api.AnalyticsServiceBase), body)


async def test_an_rpc_is_an_annotation_and_a_method(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is served over both protocols, documented, told by reflection and counted, beside the others."""
    monkeypatch.syspath_prepend(tmp_path / "gen")
    api = await generated(tmp_path)
    monkeypatch.setattr("ingestor.fronts._GENERATED", PACKAGE)
    monkeypatch.setattr("ingestor.fronts.IngestorService", with_the_method(api))
    async with gateway(database_url, journal="memory") as running:
        await over_grpc(running, api)
        await over_http(running)
        assert "CheckMetric says which rules" in (await openapi(running))["post"]["description"]
        assert "CheckMetric" in await reflected(running)
        for protocol in ("grpc", "http"):
            labels = {"rpc": RPC, "protocol": protocol, "code": "OK"}
            registry = running.app.telemetry.registry
            assert registry.get_sample_value("ingestor_rpc_total", labels) == 2
        assert (await running.stub.log_metric(LogMetricRequest("s", "m", 1.0))).success
        assert running.count("ingestor_metrics_received_total") == 1


async def over_grpc(running: Gateway, api: Any) -> None:
    """A metric that is good and one that is not, by a client that is no part of this project."""
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        call: Any = channel.unary_unary(
            f"/{RPC}", request_serializer=bytes, response_deserializer=api.CheckMetricResponse.parse
        )
        good = api.Metric(service_name="s", metric_name="m", value=1.0)
        assert (await call(api.CheckMetricRequest(metric=good))).problems == []
        bad = api.Metric(service_name="s")
        assert (await call(api.CheckMetricRequest(metric=bad))).problems == PROBLEMS


async def over_http(running: Gateway) -> None:
    """The same; the body is the metric."""
    assert await running.post("/v1/metrics:check", GOOD) == (200, {"problems": []})
    assert await running.post("/v1/metrics:check", {"serviceName": "s"}) == (200, {"problems": PROBLEMS})


async def openapi(running: Gateway) -> Any:
    """What the document says of the path."""
    async with running.http.get("/openapi.json") as response:
        return (await response.json())["paths"]["/v1/metrics:check"]


async def reflected(running: Gateway) -> list[str]:
    """The service's rpcs, as reflection tells them to whoever asks for the new one."""
    request = reflection.ServerReflectionRequest(file_containing_symbol=RPC.replace("/", "."))
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        method: Any = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        [answer] = [each async for each in method([request.SerializeToString()])]
    told = reflection.ServerReflectionResponse.FromString(answer).file_descriptor_response
    file = FileDescriptorProto.FromString(told.file_descriptor_proto[0])
    return [each.name for each in file.service[0].method]
