"""Binds a typed service to the descriptor set: for each of its methods, all that serving it takes.

It refuses at start what the server can't serve, with the rpc's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

from betterproto2.casing import snake_case
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from ingestor.errors import Invalid
from ingestor.transport.messages import Converter


class TypedService(Protocol):
    """A betterproto2 service: its rpcs' paths with the types of their messages."""

    def __mapping__(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Rpc:
    """One unary method. `path` is gRPC's (`/package.Service/Method`), `request` and `response` are the upb
    message classes, `http` the method's google.api.http rule, if it has one."""

    path: str
    request: type[Message]
    response: type[Message]
    http: HttpRule | None
    _to_typed: Callable[[Message], Any] = field(repr=False)
    _method: Callable[[Any], Awaitable[Any]] = field(repr=False)

    def parse(self, body: bytes) -> Message:
        """The request from its protobuf bytes. Raises Invalid for what is not exactly one message."""
        try:
            return self.request.FromString(body)
        except DecodeError:
            msg = f"the body is not a valid {self.request.DESCRIPTOR.full_name}"
            raise Invalid(msg) from None

    async def call(self, request: Message) -> bytes:
        """Calls the service; returns the response's protobuf bytes. Raises what the method raises."""
        return bytes(await self._method(self._to_typed(request)))


class Descriptors:
    """The FileDescriptorSet of an API, as a pool to make messages from and as the rules of its methods."""

    def __init__(self, descriptor_set: bytes) -> None:
        parsed = FileDescriptorSet.FromString(descriptor_set)
        self.pool = DescriptorPool()
        self._methods: dict[str, MethodDescriptorProto] = {}
        for file in parsed.file:
            self.pool.Add(file)
            for service in file.service:
                for method in service.method:
                    self._methods[f"/{file.package}.{service.name}/{method.name}"] = method

    @classmethod
    def of_package(cls, package: str) -> Descriptors:
        """Those of a generated package: its `descriptors.binpb`."""
        return cls(files(package).joinpath("descriptors.binpb").read_bytes())

    def bind(self, service: TypedService) -> list[Rpc]:
        """The methods of `service`, which implements a service of this set. Raises ValueError for a method
        that can't be served."""
        converter = Converter()
        return [
            self._bind(service, path, handler, converter) for path, handler in service.__mapping__().items()
        ]

    def _bind(self, service: TypedService, path: str, handler: Any, converter: Converter) -> Rpc:
        service_name, _, name = path[1:].partition("/")
        described: ServiceDescriptor = self.pool.FindServiceByName(service_name)
        method = described.methods_by_name[name]
        proto = self._methods[path]
        if proto.client_streaming or proto.server_streaming:
            msg = f"{path}: streaming methods can't be served"
            raise ValueError(msg)
        rule = proto.options.Extensions[annotations_pb2.http]
        return Rpc(
            path=path,
            request=GetMessageClass(method.input_type),
            response=GetMessageClass(method.output_type),
            http=rule if rule.WhichOneof("pattern") else None,
            _to_typed=converter.to_typed(method.input_type, handler.request_type),
            _method=getattr(service, snake_case(name)),
        )
