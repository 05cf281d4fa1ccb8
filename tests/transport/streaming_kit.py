"""A service of every kind of stream, made of wrapped numbers, for tests of what lies between it and its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.wrappers_pb2 import DESCRIPTOR, Int64Value

from ingestor.metadata import METADATA
from ingestor.transport.rpc import Rpc, bind_plain

_NUMBER = ".google.protobuf.Int64Value"
COUNT, ADD, ECHO = (f"/test.Numbers/{name}" for name in ("Count", "Add", "Echo"))


def _described() -> ServiceDescriptor:
    file = FileDescriptorProto(
        name="numbers.proto", package="test", dependency=[DESCRIPTOR.name], syntax="proto3"
    )
    service = file.service.add(name="Numbers")
    for name, client, server in (("Count", False, True), ("Add", True, False), ("Echo", True, True)):
        service.method.add(
            name=name,
            input_type=_NUMBER,
            output_type=_NUMBER,
            client_streaming=client,
            server_streaming=server,
        )
    pool = DescriptorPool()
    wrappers = FileDescriptorProto()
    DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    described: ServiceDescriptor = pool.FindServiceByName("test.Numbers")
    return described


class Numbers:
    """`seen` are the numbers that came, `ended` is set when a stream's generator is closed. `metadata` is that of
    the latest call of Echo."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.ended = asyncio.Event()
        self.metadata: dict[str, Sequence[str | bytes]] = {}

    def rpcs(self) -> list[Rpc]:
        return bind_plain(_described(), self)

    async def count(self, request: Any) -> AsyncGenerator[Int64Value, None]:
        """Counts up to the number; from a negative one, waits for ever after its amount."""
        self.seen.append(request.value)
        try:
            for each in range(abs(request.value)):
                yield Int64Value(value=each)
            if request.value < 0:
                await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def add(self, requests: AsyncIterator[Any]) -> Int64Value:
        """The sum."""
        return Int64Value(value=sum([request.value async for request in requests]))

    async def echo(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Int64Value, None]:
        """Each as it came."""
        metadata = METADATA.get()
        assert metadata is not None
        self.metadata = dict(metadata.received)
        metadata.sent += [("answer", "yes"), ("answer-bin", b"\0\1")]
        try:
            async for request in requests:
                self.seen.append(request.value)
                yield Int64Value(value=request.value)
        finally:
            self.ended.set()


def number(value: int) -> bytes:
    return Int64Value(value=value).SerializeToString()


def value_of(answer: bytes) -> int:
    return Int64Value.FromString(answer).value
