"""A service of every kind of stream, made of numbers, for tests of what lies between it and its clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from ingestor.metadata import METADATA
from ingestor.transport.rpc import Rpc, bind_plain

COUNT, ADD, ECHO = (f"/test.Numbers/{name}" for name in ("Count", "Add", "Echo"))
_STREAMS = {"Count": (False, True), "Add": (True, False), "Echo": (True, True)}


def _described() -> ServiceDescriptor:
    file = FileDescriptorProto(name="numbers.proto", package="test", syntax="proto3")
    message = file.message_type.add(name="Number")
    message.field.add(name="value", number=1, type=FieldDescriptorProto.TYPE_INT64)
    message.field[0].label = FieldDescriptorProto.LABEL_OPTIONAL
    service = file.service.add(name="Numbers")
    for name, (client, server) in _STREAMS.items():
        service.method.add(
            name=name,
            input_type=".test.Number",
            output_type=".test.Number",
            client_streaming=client,
            server_streaming=server,
        )
    POOL.Add(file)
    described: ServiceDescriptor = POOL.FindServiceByName("test.Numbers")
    return described


POOL = DescriptorPool()
_DESCRIBED = _described()
Number: Any = GetMessageClass(POOL.FindMessageTypeByName("test.Number"))


class Numbers:
    """`seen` are the numbers that came, `made` counts those of Count, `ended` is set when a stream's generator is
    closed. `metadata` is that of the latest call of Echo."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.made = 0
        self.broken: BaseException | None = None
        self.ended = asyncio.Event()
        self.metadata: dict[str, Sequence[str | bytes]] = {}

    def rpcs(self) -> list[Rpc]:
        return bind_plain(_DESCRIBED, self)

    async def count(self, request: Any) -> AsyncGenerator[Any, None]:
        """Counts up to the number; from a negative one, waits for ever after its amount."""
        self.seen.append(request.value)
        try:
            for each in range(abs(request.value)):
                self.made += 1
                yield Number(value=each)
            if request.value < 0:
                await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def add(self, requests: AsyncIterator[Any]) -> Any:
        """The sum. With `broken` it fails, as a method might whose own connection is lost."""
        if self.broken is not None:
            raise self.broken
        return Number(value=sum([request.value async for request in requests]))

    async def echo(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """Each as it came."""
        metadata = METADATA.get()
        assert metadata is not None
        self.metadata = dict(metadata.received)
        metadata.sent += [("answer", "yes"), ("answer-bin", b"\0\1")]
        try:
            async for request in requests:
                self.seen.append(request.value)
                yield Number(value=request.value)
                if self.broken is not None:
                    raise self.broken
        finally:
            self.ended.set()


def number(value: int) -> bytes:
    message: bytes = Number(value=value).SerializeToString()
    return message


def value_of(answer: bytes) -> int:
    return int(Number.FromString(answer).value)
