"""Which rpc an HTTP request is for, and the way from its parts to the answer's body."""

from __future__ import annotations

from collections.abc import Awaitable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from ingestor.encoded import Encoded
from ingestor.errors import Invalid, NoSuchRoute, WrongMethod
from ingestor.transport.messages import encoded_lists
from ingestor.transport.rpc import Rpc
from ingestor.transport.transcoding.aside import Aside
from ingestor.transport.transcoding.bindings import ANY_METHOD, Binding, bindings
from ingestor.transport.transcoding.json_body import JsonReader, print_json, print_plain
from ingestor.transport.transcoding.json_columns import ColumnReader
from ingestor.transport.transcoding.paths import Paths
from ingestor.transport.transcoding.plain import PlainReader
from ingestor.transport.transcoding.plain_json import Print, plain_printer
from ingestor.transport.transcoding.printable import printable

# Answers of so few bytes are remembered with their JSON, so many of them.
_SHORT_BYTES_MAX, _SHORT_MAX = 16, 256


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP method and path template of one rpc. `takes_body`: something of the request is its body. `plain` and
    `columns` read bodies that say all of a request, `plain_print` prints answers of plain types."""

    method: str
    path: str
    rpc: Rpc
    pool: DescriptorPool
    binding: Binding
    takes_body: bool
    reader: JsonReader
    plain: PlainReader | None
    columns: ColumnReader | None
    plain_print: Print | None
    aside: Aside
    short: dict[bytes, bytes] = field(default_factory=dict)

    async def call(self, body: bytes, query: str = "", segments: Sequence[str] = ()) -> bytes:
        """Answers a JSON body, an (undecoded) query string and the segments of the path that matched with a JSON
        body. Raises Refusal, and what the rpc's method raises."""
        answering: Awaitable[Any]
        plain = self.plain.read(body) if self.plain is not None and not query else None
        if plain is not None:
            answering = self.rpc.answer_message(plain)
        else:
            request = await self.read(body, query, segments)
            columnar = isinstance(request, pa.RecordBatch)
            answering = self.rpc.answer_columns(request) if columnar else self.rpc.answer(request)
            del request
        del body, plain  # the method may wait for long
        response = await answering
        lists = self.rpc.lists
        if lists and self.plain_print is not None and (columns := encoded_lists(response, lists)):
            return self._print_columns(self.plain_print, response, columns)
        answer = await self.rpc.encoded(response)
        # Most answers are one of a few: that all was taken.
        return self.short.get(answer) or await self.text(answer)

    async def read(
        self, body: bytes, query: str = "", segments: Sequence[str] = ()
    ) -> Message | pa.RecordBatch:
        """The request that body, query string and path say together, as columns where it can be. Raises Invalid,
        and Overloaded when too many wait for that."""
        self.aside.check_room(len(body))
        if self.columns is not None and not query:
            return await self.aside.run(len(body), self.reader.read_columns, body, self.columns)
        return await self.aside.run(len(body), self._request, body, query, segments)

    async def text(self, answer: bytes) -> bytes:
        """The JSON of an answer."""
        if len(answer) > _SHORT_BYTES_MAX:
            return await self.aside.run(len(answer), self._print, answer)
        text = self.short.get(answer)
        if text is None:
            text = self._print(answer)
            if len(self.short) < _SHORT_MAX:
                self.short[answer] = text
        return text

    def _request(self, body: bytes, query: str, segments: Sequence[str]) -> Message:
        """The request that body, query and path say together; the path has the last word."""
        binding = self.binding
        if binding.body:
            message = self.reader.read(body, "" if binding.body == "*" else binding.body)
        elif body.strip() in (b"", b"{}"):
            message = self.reader.empty()
        else:
            msg = "this method takes no body: give its fields as query parameters"
            raise Invalid(msg)
        if query:
            binding.parameters.read(query, message)
        for variable, write in binding.variables:
            write(message, variable.of(segments))
        return message

    def _print(self, answer: bytes) -> bytes:
        message = self.rpc.response.FromString(answer)
        return print_json(message, self.pool, self.binding.response_body, self.plain_print)

    def _print_columns(self, plain: Print, response: Any, columns: Mapping[str, Encoded[Any]]) -> bytes:
        """An answer of which these lists are text as soon as they are asked for it, and the rest is short."""
        rest = replace(response, **{name: [] for name in columns})
        message = self.rpc.response.FromString(self.rpc.encode(rest))
        texts = {self.rpc.lists[name]: items.json for name, items in columns.items()}
        return print_plain(message, plain, self.binding.response_body, texts)


@dataclass(frozen=True, slots=True)
class Matched:
    """A route whose template has variables, with the segments that they stand for."""

    route: Route
    segments: Sequence[str]

    @property
    def rpc(self) -> Rpc:
        """As Route's."""
        return self.route.rpc

    @property
    def takes_body(self) -> bool:
        """As Route's."""
        return self.route.takes_body

    def call(self, body: bytes, query: str = "") -> Awaitable[bytes]:
        """As Route's."""
        return self.route.call(body, query, self.segments)

    def read(self, body: bytes, query: str = "") -> Awaitable[Message | pa.RecordBatch]:
        """As Route's."""
        return self.route.read(body, query, self.segments)

    def text(self, answer: bytes) -> Awaitable[bytes]:
        """As Route's."""
        return self.route.text(answer)


class Router:
    """The routes of some rpcs; no list in their JSON may have more than `elements_max` elements. Raises ValueError,
    with the rpc's name, for a rule that can't be served."""

    def __init__(self, rpcs: Iterable[Rpc], pool: DescriptorPool, *, elements_max: int = 50_000) -> None:
        self._pool = pool
        self._elements_max = elements_max
        self._aside = Aside()
        # What most requests are for, without a search.
        self._literal: dict[str, dict[str, Route]] = {}
        self._paths: Paths[Route] = Paths()
        self._routes: list[Route] = []
        self._rpcs = [rpc for rpc in rpcs if rpc.http is not None]
        for rpc in self._rpcs:
            try:
                self._add_all(rpc)
            except ValueError as error:
                msg = f"{rpc.path}: its google.api.http rule can't be served: {error}"
                raise ValueError(msg) from None

    @property
    def paths(self) -> set[str]:
        """gRPC's paths of the rpcs that have routes."""
        return {rpc.path for rpc in self._rpcs}

    def keep_off(self, paths: Container[str]) -> None:
        """Raises ValueError, with the rpc's name, where a route is one of these paths, which others serve."""
        for route in self._routes:
            template = route.binding.template
            if template.literal and template.path in paths:
                msg = f"{route.rpc.path}: its google.api.http rule can't be served: {template.text} is a page here"
                raise ValueError(msg)

    def match(self, method: str, raw_path: str) -> Route | Matched:
        """The route for this method and (undecoded) path. Raises NoSuchRoute, WrongMethod, or Invalid for a path
        with a broken escape."""
        methods = self._literal.get(raw_path)
        if methods is not None and (route := methods.get(method)) is not None:
            return route
        tried = (method, "GET", ANY_METHOD) if method == "HEAD" else (method, ANY_METHOD)
        found = self._paths.find(tried, raw_path)
        if found is not None:
            route = found.target
            return Matched(route, found.segments) if route.binding.variables else route
        allowed = self.allowed(raw_path)
        msg = f"{printable(raw_path)} is not served for {printable(method)}"
        raise WrongMethod(msg, allowed)

    def allowed(self, raw_path: str) -> list[str]:
        """The HTTP methods that this path takes, sorted. Raises as `match` does."""
        methods = self._paths.methods(raw_path)
        if not methods:
            msg = f"nothing is served at {printable(raw_path)}"
            raise NoSuchRoute(msg)
        if ANY_METHOD in methods:
            methods = methods - {ANY_METHOD} | {"DELETE", "GET", "PATCH", "POST", "PUT"}
        return sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))

    def _add_all(self, rpc: Rpc) -> None:
        assert rpc.http is not None
        request, response = _descriptor(rpc.request), _descriptor(rpc.response)
        plain_print = plain_printer(response)
        reader = JsonReader(rpc.request, self._pool, elements_max=self._elements_max)
        for binding in bindings(rpc.http, request, response):
            template = binding.template
            plain = PlainReader(request, rpc.typed) if binding.whole and not rpc.columnar else None
            columns = ColumnReader(request, self._elements_max) if binding.whole and rpc.columnar else None
            route = Route(
                binding.method,
                template.text,
                rpc,
                self._pool,
                binding,
                bool(binding.body),
                reader,
                plain,
                columns,
                plain_print,
                self._aside,
            )
            self._routes.append(route)
            there = self._paths.add(route.method, template, route)
            if there is not route:
                msg = f"{route.method} {route.path} is a route of {there.rpc.path} already, as {there.path}"
                raise ValueError(msg)
            if template.literal and "%" not in template.text and not template.variables:
                self._literal.setdefault(template.text, {})[route.method] = route


def _descriptor(message_class: type[Message]) -> Descriptor:
    descriptor: Any = message_class.DESCRIPTOR  # upb's own class, alike
    found: Descriptor = descriptor
    return found
