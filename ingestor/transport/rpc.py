"""Binds a typed service to the descriptor set: for each of its methods, all that serving it takes.

It refuses at start what the server can't serve, with the rpc's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol, TypeAlias

import pyarrow as pa
from betterproto2.casing import snake_case
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Handler

from ingestor.errors import FieldViolation, Invalid, Overloaded
from ingestor.transport.columns import ColumnDecoder, elements_at_most, joined, pieces
from ingestor.transport.messages import Converter, encoder, is_long, typed_name

# Some 2 ms of parsing, decoding and checking.
_TURN_BYTES = 160 * 1024
# What a row costs at the least, of which an empty one has two. The bytes of usual rows that look like the beginning
# of one are a twentieth at most.
_ELEMENT_BYTES = 20
# What is larger is cut: 512 KiB take some 5 ms, a whole body of 4 MiB six times as long.
_PIECE_BYTES = 512 * 1024
# Some four seconds of decoding.
_WAITING_BYTES_MAX = 64 * 1024 * 1024
_RETRY_AFTER_S = 1.0


StreamedRequest: TypeAlias = Message | pa.RecordBatch
"""A request of a stream: parsed, or as columns where the rpc is columnar."""


class TypedService(Protocol):
    """A betterproto2 service: its rpcs' paths with the types of their messages."""

    def __mapping__(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method. `path` is gRPC's (`/package.Service/Method`), `request` and `response` are the upb message
    classes, `typed` is betterproto2's of the request, `http` the method's google.api.http rule, if it has one;
    `lists` are the answer's, with their names in JSON, and `encode` makes its protobuf bytes. One that streams, in
    either direction, is called by `stream`, any other by `serve`, or `answer` and its siblings."""

    path: str
    client_streaming: bool
    server_streaming: bool
    request: type[Message]
    typed: type[Any]
    response: type[Message]
    http: HttpRule | None
    lists: Mapping[str, str]
    encode: Callable[[Any], bytes] = field(repr=False)
    _to_typed: Callable[[Message], Any] = field(repr=False)
    _method: Callable[[Any], Any] = field(repr=False)
    _columns: ColumnCall | None = field(repr=False)

    def parse(self, body: bytes) -> Message:
        """The request from its protobuf bytes. Raises Invalid for what is not exactly one message."""
        try:
            return self.request.FromString(body)
        except DecodeError:
            msg = f"the body is not a valid {self.request.DESCRIPTOR.full_name}"
            raise Invalid(msg) from None

    async def read(self, body: bytes) -> StreamedRequest:
        """A streamed request from its protobuf bytes: where the service takes columns never as one message, which
        may be forty times as large. Raises Invalid."""
        if self._columns is None:
            return self.parse(body)
        return await self._columns.decoded(body, self.parse)

    async def serve(self, body: bytes) -> bytes:
        """Answers protobuf bytes with protobuf bytes, by columns where the service takes them. Raises Invalid and
        what the method raises."""
        if self._columns is None:
            answering = self.answer_typed(self.parse(body))
        else:
            # By upb first: the column decoder is not strict.
            answering = self._columns.method(await self._columns.decoded(body, self.parse))
        del body  # the method may wait for long
        return await self.encoded(await answering)

    async def answer(self, request: Message) -> Any:
        """The method's answer to a parsed request, likewise."""
        if self._columns is None:
            answering = self.answer_typed(request)
        else:
            answering = self._columns.method(await self._columns.of_message(request))
        del request
        return await answering

    def answer_columns(self, request: pa.RecordBatch) -> Awaitable[Any]:
        """That to a request that is columns already, as `transport.columns` makes them."""
        assert self._columns is not None
        answering: Awaitable[Any] = self._columns.method(request)
        return answering

    def answer_typed(self, request: Message) -> Awaitable[Any]:
        """That to a parsed request by the typed method, whatever other entry the service has."""
        return self.answer_message(self._to_typed(request))

    def answer_message(self, request: Any) -> Awaitable[Any]:
        """That to a typed request, likewise."""
        answering: Awaitable[Any] = self._method(request)
        return answering

    async def encoded(self, response: Any) -> bytes:
        """An answer's protobuf bytes."""
        if self.lists and is_long(response):
            return await asyncio.to_thread(self.encode, response)
        return self.encode(response)

    @property
    def columnar(self) -> bool:
        """Whether the service takes this method's requests as columns."""
        return self._columns is not None

    @property
    def service(self) -> str:
        """Its service's full name."""
        return self.path[1:].partition("/")[0]

    @property
    def streams(self) -> bool:
        """Whether it does, in either direction."""
        return self.client_streaming or self.server_streaming

    async def stream(self, requests: AsyncIterator[StreamedRequest]) -> AsyncGenerator[bytes, None]:
        """Answers requests with protobuf bytes of responses, each made when it is asked for: the pace is
        that of whoever reads them, who also closes this generator, and with it the method's. Raises Invalid, also
        when a method of one request gets none or several, and what `requests` and the method raise."""
        method = self._method if self._columns is None else self._columns.method
        async with aclosing(self._given(requests)) as given:
            if not self.server_streaming:
                yield await self.encoded(await method(given))
                return
            answering = method(given if self.client_streaming else await _only(given))
            async with aclosing(answering) as answers:
                async for answer in answers:
                    yield await self.encoded(answer)

    async def _given(self, requests: AsyncIterator[StreamedRequest]) -> AsyncGenerator[Any, None]:
        """What the method takes, for each of these."""
        columns = self._columns
        async for request in requests:
            given: list[Any]
            if isinstance(request, pa.RecordBatch):
                given = [request]
            else:
                given = [self._to_typed(request) if columns is None else await columns.of_message(request)]
            del request  # the method may wait for long
            yield given.pop()


@dataclass(frozen=True, slots=True)
class ColumnCall:
    """A bulk method's columnar entry: the service's method of the same name with `_columns` behind it, which takes
    the request as an Arrow record batch of one row (an iterator of such, if requests are streamed).
    `elements_max` bounds the request's one list."""

    decoder: ColumnDecoder
    method: Callable[[Any], Any]
    list_name: str
    elements_max: int
    turns: Turns

    async def of_message(self, request: Message) -> pa.RecordBatch:
        """A parsed request's columns, likewise."""
        return await self.decoded(request.SerializeToString())

    async def decoded(self, body: bytes, check: Callable[[bytes], object] = len) -> pa.RecordBatch:
        """The request's columns, piece by piece, each in its turn and after `check` has seen it. Raises Invalid,
        also when the list has too many elements, before much is made of them."""
        decoded = []
        self.turns.enter(len(body))
        try:
            for piece in pieces(body, _PIECE_BYTES, self.elements_max):
                await self.turns.take(max(len(piece), _ELEMENT_BYTES * elements_at_most(piece)))
                try:
                    check(piece)
                    decoded.append(self.decoder.decode(piece))
                finally:
                    self.turns.give()
        except OverflowError:
            problem = f"has too many elements, {self.elements_max} at most: send smaller batches"
            raise Invalid.fields([FieldViolation(self.list_name, problem)]) from None
        finally:
            self.turns.leave(len(body))
        return joined(decoded)


class Turns:
    """Shares the turns of the event loop out among bulk requests, first come first: each decodes `_TURN_BYTES`, or
    one request that is larger.

    Sixteen of 200 kB in one turn would hold it for 50 ms, and with it whoever waits for a small answer, and the
    database, which has four round trips for each batch.
    """

    def __init__(self) -> None:
        self._free = asyncio.Lock()
        self._left = _TURN_BYTES
        self._waiting_bytes = 0

    def enter(self, size: int) -> None:
        """A request of so many bytes waits for its turns, until it has to `leave`. Raises Overloaded, and then it
        has not entered."""
        if self._waiting_bytes + size > _WAITING_BYTES_MAX:
            msg = "too many requests wait to be decoded: nothing was taken"
            raise Overloaded(msg, _RETRY_AFTER_S)
        self._waiting_bytes += size

    def leave(self, size: int) -> None:
        """It was decoded, or given up."""
        self._waiting_bytes -= size

    async def take(self, size: int) -> None:
        """Returns when it is time to decode what costs as much as so many bytes of usual rows; `give` ends it."""
        await self._free.acquire()
        if size > self._left:
            try:
                await asyncio.sleep(0)  # what came in meanwhile goes first
            except BaseException:
                self._free.release()
                raise
            self._left = _TURN_BYTES
        self._left -= size

    def give(self) -> None:
        """The next one may decode."""
        self._free.release()


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """How bulk requests become columns: by which decoder, and of how many elements at most."""

    decoder: Callable[[Descriptor], ColumnDecoder]
    elements_max: int
    turns: Turns = field(default_factory=Turns)


class Descriptors:
    """The FileDescriptorSet of an API, as a pool to make messages from and as the rules of its methods. `files` are
    its files by name, with their comments."""

    def __init__(self, descriptor_set: bytes) -> None:
        parsed = FileDescriptorSet.FromString(descriptor_set)
        self.pool = DescriptorPool()
        self.files: dict[str, FileDescriptorProto] = {}
        self._methods: dict[str, MethodDescriptorProto] = {}
        for file in parsed.file:
            self._add(file)
            for service in file.service:
                for method in service.method:
                    self._methods[f"/{file.package}.{service.name}/{method.name}"] = method

    @classmethod
    def of_package(cls, package: str) -> Descriptors:
        """Those of a generated package: its `descriptors.binpb`."""
        return cls(files(package).joinpath("descriptors.binpb").read_bytes())

    def add(self, files: Iterable[FileDescriptor]) -> None:
        """These files, too, with all that they import."""
        for file in files:
            if file.name not in self.files:
                self.add(file.dependencies)
                described = FileDescriptorProto()
                file.CopyToProto(described)
                self._add(described)

    def _add(self, file: FileDescriptorProto) -> None:
        self.pool.Add(file)
        self.files[file.name] = file

    def bind(self, service: TypedService, columns: ColumnOptions) -> list[Rpc]:
        """The methods of `service`, which implements a service of this set. Raises ValueError for a method that
        can't be served."""
        converter = Converter()
        return [
            self._bind(path, handler, service, converter, columns)
            for path, handler in service.__mapping__().items()
        ]

    def _bind(
        self, path: str, handler: Handler, service: TypedService, converter: Converter, columns: ColumnOptions
    ) -> Rpc:
        service_name, _, name = path[1:].partition("/")
        described: ServiceDescriptor = self.pool.FindServiceByName(service_name)
        method = described.methods_by_name[name]
        proto = self._methods[path]
        rule = proto.options.Extensions[annotations_pb2.http]
        columnar = getattr(service, f"{snake_case(name)}_columns", None)
        return Rpc(
            path=path,
            client_streaming=proto.client_streaming,
            server_streaming=proto.server_streaming,
            request=GetMessageClass(method.input_type),
            typed=handler.request_type,
            response=GetMessageClass(method.output_type),
            http=rule if rule.WhichOneof("pattern") else None,
            lists={
                typed_name(each, handler.reply_type): each.json_name
                for each in method.output_type.fields
                if each.is_repeated
            },
            encode=encoder(method.output_type, handler.reply_type),
            _to_typed=converter.to_typed(method.input_type, handler.request_type),
            _method=getattr(service, snake_case(name)),
            _columns=None if columnar is None else _column_call(columnar, method.input_type, columns),
        )


def bind_plain(described: ServiceDescriptor, service: object) -> list[Rpc]:
    """The methods of a service that is written with protobuf's own messages."""
    return [
        Rpc(
            path=f"/{described.full_name}/{method.name}",
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            request=GetMessageClass(method.input_type),
            typed=GetMessageClass(method.input_type),
            response=GetMessageClass(method.output_type),
            http=None,
            lists={},
            encode=_encode_plain,
            _to_typed=_as_it_is,
            _method=getattr(service, snake_case(method.name)),
            _columns=None,
        )
        for method in described.methods
    ]


def _as_it_is(message: Message) -> Message:
    return message


def _encode_plain(message: Message) -> bytes:
    return message.SerializeToString()


async def _only(requests: AsyncIterator[Any]) -> Any:
    """The one request of a method whose requests are not streamed."""
    first = await anext(requests, None)
    if first is None:
        msg = "the request has no message"
        raise Invalid(msg)
    # A method must not run on half of what the client meant.
    if await anext(requests, None) is not None:
        msg = "the request goes on after its one message"
        raise Invalid(msg)
    return first


def _column_call(method: Callable[[Any], Any], request: Descriptor, options: ColumnOptions) -> ColumnCall:
    first = request.fields_by_number[1]
    if not first.is_repeated:
        msg = f"{request.full_name}: a columnar method needs a list as its request's field 1"
        raise ValueError(msg)
    return ColumnCall(options.decoder(request), method, first.name, options.elements_max, options.turns)
