"""Clients that need the server's address and nothing else: buf curl and grpcio, by reflection, against `ingestor
serve`."""

from __future__ import annotations

import json
import time
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1 import reflection_pb2

from tests.clients.buf import buf_curl
from tests.clients.conftest import Served

SERVICE = "analytics.v1.AnalyticsService"
COMMITTED = 3

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Reflected:
    """The methods of the service, with their messages, as the server tells them."""

    def __init__(self, channel: grpc.aio.Channel, pool: DescriptorPool) -> None:
        self._channel = channel
        self._methods = pool.FindServiceByName(SERVICE).methods_by_name

    @classmethod
    async def of(cls, channel: grpc.aio.Channel) -> Reflected:
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
        ask: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        [answer] = [each async for each in ask([request])]
        files = [
            FileDescriptorProto.FromString(each)
            for each in answer.file_descriptor_response.file_descriptor_proto
        ]
        pool, added = DescriptorPool(), set[str]()
        while len(added) < len(files):  # a file after those that it imports
            for file in files:
                if file.name not in added and set(file.dependency) <= added:
                    pool.Add(file)
                    added.add(file.name)
        return cls(channel, pool)

    def request(self, method: str, **fields: Any) -> Any:
        """A request of this method."""
        return GetMessageClass(self._methods[method].input_type)(**fields)

    def method(self, name: str) -> Any:
        """To be called with a request, or with requests where it streams."""
        make: Any = self._channel.stream_stream if name == "StreamMetrics" else self._channel.unary_unary
        return make(
            f"/{SERVICE}/{name}",
            request_serializer=GetMessageClass(self._methods[name].input_type).SerializeToString,
            response_deserializer=GetMessageClass(self._methods[name].output_type).FromString,
        )


def metric(service: str, value: float | None, **more: Any) -> dict[str, Any]:
    return {"service_name": service, "metric_name": "m", "value": value, **more}


async def test_buf_curl(served: Served) -> None:
    """A metric, a batch and a stream of batches."""

    def said(value: float) -> dict[str, Any]:
        return {"serviceName": "buf", "metricName": "m", "value": value, "labels": {"region": "eu"}}

    address = served.grpc_address
    answers = await buf_curl(address, f"{SERVICE}/LogMetric", body=json.dumps(said(1)))
    assert answers == [{"success": True}]
    answers = await buf_curl(
        address, f"{SERVICE}/LogMetrics", body=json.dumps({"metrics": [said(2), said(3)]})
    )
    assert answers == [{"accepted": "2"}]
    batches = "\n".join(json.dumps({"metrics": [said(value)] * size}) for size, value in ((1, 4), (2, 5)))
    answers = await buf_curl(address, f"{SERVICE}/StreamMetrics", body=batches)
    assert answers == [{"accepted": "1"}, {"accepted": "2"}]
    rows = await served.rows("buf", 6)
    assert rows == [("m", value, '{"region": "eu"}') for value in (1, 2, 3, 4, 5, 5)]


async def test_grpcio_knows_the_api_by_reflection(served: Served) -> None:
    """A metric, a batch with a bad one, columns, and a stream that is answered request by request."""
    async with grpc.aio.insecure_channel(served.grpc_address) as channel:
        api = await Reflected.of(channel)
        one = api.request("LogMetric", **metric("grpcio", 1, labels={"region": "eu"}))
        assert (await api.method("LogMetric")(one)).success
        batch = [metric("grpcio", 2), metric("grpcio", None), metric("grpcio", 3)]
        answer = await api.method("LogMetrics")(api.request("LogMetrics", metrics=batch))
        assert (answer.accepted, [each.index for each in answer.rejected]) == (2, [1])
        now = [int(point * 1e9) for point in (time.time(), time.time() - 1)]
        series = {"service_name": "grpcio", "metric_name": "m", "time_unix_nano": now, "value": [4, 5]}
        answer = await api.method("WriteSeries")(api.request("WriteSeries", series=[series]))
        assert answer.accepted == 2
        call = api.method("StreamMetrics")()
        for value in (6, 7, 8):
            await call.write(api.request("StreamMetrics", metrics=[metric("grpcio", value)]))
            assert (await call.read()).accepted == 1
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert [(row[1], row[2]) for row in await served.rows("grpcio", 8)] == [
        (value, '{"region": "eu"}' if value == 1 else "{}") for value in range(1, 9)
    ]


async def test_grpcio_is_told_what_is_wrong(served: Served) -> None:
    """A status with its details, a deadline while nothing is committed, and health."""
    async with grpc.aio.insecure_channel(served.grpc_address) as channel:
        api = await Reflected.of(channel)
        method = api.method("LogMetric")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(api.request("LogMetric", **metric("wrong", None)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        metadata: Any = dict(caught.value.trailing_metadata() or ())
        said, bad = Status.FromString(metadata["grpc-status-details-bin"]), BadRequest()
        assert said.details[0].Unpack(bad)
        assert [each.field for each in bad.field_violations] == ["value"]
        # What comes behind it is stored, and nothing of it.
        await method(api.request("LogMetric", **metric("wrong", 2, ack=COMMITTED)))
        async with served.nothing_committed():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(api.request("LogMetric", **metric("late grpcio", 1, ack=COMMITTED)), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        assert (await check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
    assert [row[1] for row in await served.rows("wrong", 1)] == [2]
    assert [row[1] for row in await served.rows("late grpcio", 1)] == [1]
