"""Which rpc an HTTP request is for, and the way from its body to the answer's.

Paths are compared as they were sent, before any decoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
from google.protobuf.descriptor_pool import DescriptorPool

from ingestor.errors import NoSuchRoute, WrongMethod
from ingestor.transport.rpc import Rpc
from ingestor.transport.transcoding.aside import Aside
from ingestor.transport.transcoding.json_body import JsonReader, print_json
from ingestor.transport.transcoding.json_columns import ColumnReader
from ingestor.transport.transcoding.plain import PlainReader
from ingestor.transport.transcoding.printable import printable

# google/api/http.proto, "Path template syntax": literal segments and at most one verb.
_LITERAL_PATH = re.compile(r"(/[\w.~-]+)+(:[\w.~-]+)?")


# Answers of so few bytes are remembered with their JSON, so many of them.
_SHORT_BYTES_MAX, _SHORT_MAX = 16, 256


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP method and path of one rpc."""

    method: str
    path: str
    rpc: Rpc
    pool: DescriptorPool
    plain: PlainReader
    reader: JsonReader
    columns: ColumnReader | None
    aside: Aside
    short: dict[bytes, str] = field(default_factory=dict)

    async def call(self, body: bytes) -> str:
        """Answers a JSON body with a JSON body. Raises Refusal, and what the rpc's method raises."""
        if self.columns is None:
            plain = self.plain.read(body)
            if plain is not None:
                answering = self.rpc.call_message(plain)
            else:
                answering = self.rpc.call(await self.aside.run(len(body), self.reader.read, body))
            del plain
        else:
            request = await self.aside.run(len(body), self.reader.read_columns, body, self.columns)
            columnar = isinstance(request, pa.RecordBatch)
            answering = self.rpc.call_columns(request) if columnar else self.rpc.call(request)
            del request
        del body  # the method may wait for long
        answer = await answering
        if len(answer) > _SHORT_BYTES_MAX:
            return await self.aside.run(len(answer), self._print, answer)
        # Most answers are one of a few: that all was taken.
        text = self.short.get(answer)
        if text is None:
            text = self._print(answer)
            if len(self.short) < _SHORT_MAX:
                self.short[answer] = text
        return text

    def _print(self, answer: bytes) -> str:
        return print_json(self.rpc.response.FromString(answer), self.pool)


class Router:
    """The routes of some rpcs; no list in their JSON may have more than `elements_max` elements. Raises ValueError
    for a rule that can't be mapped."""

    def __init__(self, rpcs: Iterable[Rpc], pool: DescriptorPool, *, elements_max: int = 50_000) -> None:
        self._routes: dict[str, dict[str, Route]] = {}
        aside = Aside()
        for rpc in rpcs:
            if rpc.http is not None and not rpc.streams:
                method, path = _rule(rpc)
                reader = JsonReader(rpc.request, pool, elements_max=elements_max)
                plain = PlainReader(reader.descriptor, rpc.typed)
                columns = ColumnReader(reader.descriptor, elements_max) if rpc.columnar else None
                route = Route(method, path, rpc, pool, plain, reader, columns, aside)
                self._routes.setdefault(route.path, {})[route.method] = route

    @property
    def paths(self) -> set[str]:
        """gRPC's paths of the rpcs that have routes."""
        return {route.rpc.path for methods in self._routes.values() for route in methods.values()}

    def match(self, method: str, raw_path: str) -> Route:
        """The route for this method and (undecoded) path. Raises NoSuchRoute or WrongMethod."""
        methods = self._routes.get(raw_path)
        if methods is None:
            msg = f"nothing is served at {printable(raw_path)}"
            raise NoSuchRoute(msg)
        if method not in methods:
            msg = f"{raw_path} is not served for {method}"
            raise WrongMethod(msg, sorted(methods))
        return methods[method]


def _rule(rpc: Rpc) -> tuple[str, str]:
    """The method and path of the rpc's rule."""
    rule = rpc.http
    assert rule is not None
    pattern = rule.WhichOneof("pattern")
    path = getattr(rule, pattern) if pattern in ("put", "post", "patch") else ""
    if (
        not _LITERAL_PATH.fullmatch(path)
        or rule.body != "*"
        or rule.response_body
        or rule.additional_bindings
    ):
        msg = (
            f'{rpc.path}: this google.api.http rule can\'t be served: only a literal path with body: "*" can'
        )
        raise ValueError(msg)
    return pattern.upper(), path
