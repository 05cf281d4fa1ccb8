"""Server reflection, as generic clients use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc.code_pb2 import Code
from grpclib.reflection.v1 import reflection_pb2 as v1
from grpclib.reflection.v1alpha import reflection_pb2 as v1alpha

from tests.clients.buf import buf_curl
from tests.gateway import Gateway

SERVICES = [
    "analytics.v1.AnalyticsService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]
OURS = "analytics/v1/analytics.proto"


async def asked(running: Gateway, *requests: dict[str, Any], version: Any = v1) -> list[Any]:
    """The answers to these requests, on one stream."""
    package = version.DESCRIPTOR.package
    async with grpc.aio.insecure_channel(running.grpc_address) as channel:
        method: Any = channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo")
        sent = [version.ServerReflectionRequest(**each).SerializeToString() for each in requests]
        return [version.ServerReflectionResponse.FromString(each) async for each in method(sent)]


def files_of(answer: Any) -> list[FileDescriptorProto]:
    return [
        FileDescriptorProto.FromString(each) for each in answer.file_descriptor_response.file_descriptor_proto
    ]


@pytest.mark.parametrize("version", [v1, v1alpha])
async def test_services_are_listed(running: Gateway, version: Any) -> None:
    """All that are served; the answer repeats what was asked."""
    [answer] = await asked(running, {"host": "h", "list_services": "*"}, version=version)
    assert [service.name for service in answer.list_services_response.service] == SERVICES
    assert answer.valid_host == "h"
    assert answer.original_request.list_services == "*"


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("analytics.v1.AnalyticsService", OURS),
        (".analytics.v1.AnalyticsService", OURS),
        ("analytics.v1.AnalyticsService.StreamMetrics", OURS),
        ("analytics.v1.LogMetricRequest", OURS),
        ("analytics.v1.LogMetricRequest.LabelsEntry", OURS),
        ("analytics.v1.LogMetricRequest.value", OURS),
        ("analytics.v1.AckLevel", OURS),
        ("analytics.v1.ACK_LEVEL_QUEUED", OURS),
        ("google.api.http", "google/api/annotations.proto"),
        ("google.rpc.BadRequest", "google/rpc/error_details.proto"),
        ("google.rpc.Status", "google/rpc/status.proto"),
        ("grpc.health.v1.Health", "grpclib/health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpclib/reflection/v1/reflection.proto"),
    ],
)
async def test_files_are_found_by_symbols(running: Gateway, symbol: str, name: str) -> None:
    """The file comes first, and with it come all that it imports: a pool can be made of the answer alone."""
    [answer] = await asked(running, {"file_containing_symbol": symbol})
    files = files_of(answer)
    assert files[0].name == name
    pool = DescriptorPool()
    for file in reversed(_imports_last(files)):
        pool.Add(file)
    assert pool.FindFileByName(name).name == name


def _imports_last(files: Sequence[FileDescriptorProto]) -> list[FileDescriptorProto]:
    by_name = {file.name: file for file in files}
    ordered: dict[str, FileDescriptorProto] = {}

    def visit(name: str) -> None:
        for each in by_name[name].dependency:
            visit(each)
        ordered.setdefault(name, by_name[name])

    visit(files[0].name)
    assert len(ordered) == len(files)
    return list(reversed(ordered.values()))


async def test_files_are_found_by_name_with_their_comments(running: Gateway) -> None:
    """Which generic clients show as documentation."""
    [answer] = await asked(running, {"file_by_filename": OURS})
    ours = files_of(answer)[0]
    assert "StreamMetrics takes batch after batch" in str(ours.source_code_info)


async def test_extensions_are_found(running: Gateway) -> None:
    """By the number of google.api.http."""
    options = "google.protobuf.MethodOptions"
    numbers, by_number = await asked(
        running,
        {"all_extension_numbers_of_type": options},
        {"file_containing_extension": {"containing_type": options, "extension_number": 72295728}},
    )
    assert numbers.all_extension_numbers_response.base_type_name == options
    assert list(numbers.all_extension_numbers_response.extension_number) == [72295728]
    assert files_of(by_number)[0].name == "google/api/annotations.proto"


@pytest.mark.parametrize("version", [v1, v1alpha])
async def test_what_is_not_there_is_an_answer(running: Gateway, version: Any) -> None:
    """NOT_FOUND for each way to ask, INVALID_ARGUMENT for no question, and the stream goes on."""
    answers = await asked(
        running,
        {"file_by_filename": "no.proto"},
        {"file_containing_symbol": "no.Such"},
        {"file_containing_symbol": "analytics.v1.AnalyticsService.No"},
        {"file_containing_symbol": ""},
        {"file_containing_extension": {"containing_type": "no.Such", "extension_number": 1}},
        {"file_containing_extension": {"containing_type": "analytics.v1.Metric", "extension_number": -1}},
        {"all_extension_numbers_of_type": "no.Such"},
        {},
        {"list_services": ""},
        version=version,
    )
    codes = [answer.error_response.error_code for answer in answers]
    assert codes == [Code.NOT_FOUND] * 7 + [Code.INVALID_ARGUMENT, Code.OK]


@pytest.mark.parametrize("reflection", ["grpc-v1", "grpc-v1alpha"])
async def test_buf_curl_needs_no_proto(running: Gateway, reflection: str) -> None:
    """A unary call and a stream of requests, by reflection alone."""
    options = ("--reflect-protocol", reflection)
    metric = {"serviceName": "s", "metricName": "m", "value": 1}
    service = SERVICES[0]
    answers = await buf_curl(running.grpc_address, f"{service}/LogMetric", *options, body=json.dumps(metric))
    assert answers == [{"success": True}]
    requests = "\n".join(json.dumps({"metrics": [metric] * size}) for size in (1, 2, 3))
    answers = await buf_curl(running.grpc_address, f"{service}/StreamMetrics", *options, body=requests)
    assert answers == [{"accepted": str(size)} for size in (1, 2, 3)]
    assert await buf_curl(running.grpc_address, "grpc.health.v1.Health/Check", *options) == [
        {"status": "SERVING"}
    ]
