"""The document itself: an operation for each HTTP binding of each method, with what they refer to."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from ingestor.transport.transcoding.openapi.comments import Comments, first_sentence
from ingestor.transport.transcoding.openapi.errors import error_responses, error_schema, error_schemas
from ingestor.transport.transcoding.openapi.parameters import json_path, path_parameters, query_parameters
from ingestor.transport.transcoding.openapi.paths import Path, Spellings, read_template
from ingestor.transport.transcoding.openapi.schemas import Schema, Schemas, reachable

JSON, LINES = "application/json", "application/x-ndjson"

_ABOUT = """\
Bodies are [proto3 JSON](https://protobuf.dev/programming-guides/json/): 64-bit integers are strings, times are RFC
3339, bytes are base64. Unknown fields are refused. Requests are read liberally: fields also by their proto names,
numbers also as strings, enums also by number, `null` as unset. Answers show every field, those with presence only
when they are set.
"""
_LINES_IN = "A stream: one message a line, as JSON."
_LINES_OUT = """\
A stream: one line of JSON for each message, `{"result": ...}`. When it fails after it began, its last line is
`{"error": ...}`; a failure before the first message has its HTTP status instead."""
# Others can't be said in OpenAPI 3.1.
_VERBS = frozenset(("get", "put", "post", "delete", "patch", "head", "options", "trace"))


@dataclass(frozen=True, slots=True)
class Info:
    """What stands at the document's head."""

    title: str
    version: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class _Method:
    """One method, with its own part of the descriptor set."""

    service: ServiceDescriptor
    proto: MethodDescriptorProto
    request: Descriptor
    response: Descriptor

    @property
    def full_name(self) -> str:
        return f"{self.service.full_name}.{self.proto.name}"

    def bindings(self) -> Iterator[tuple[int, HttpRule]]:
        """Its HTTP bindings, counted from 1."""
        rule = self.proto.options.Extensions[annotations_pb2.http]
        if rule.WhichOneof("pattern"):
            yield from enumerate([rule, *rule.additional_bindings], 1)


def describe(
    files: Sequence[FileDescriptorProto], pool: DescriptorPool, served: Container[str], info: Info
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the methods in `served` (`/package.Service/Method`), which are described in
    `files` and are in `pool`. Raises ValueError for two bindings of one path and method."""
    methods = [method for method in _methods(files, pool) if _grpc_path(method) in served]
    comments = Comments(files)
    both = reachable(method.request for method in methods) & reachable(method.response for method in methods)
    services = {method.service.full_name: method.service for method in methods}
    names = _names(services.values())
    writer = _Writer(comments, both, names)
    for method in methods:
        writer.add(method)
    about = "\n".join(filter(None, [info.description, _ABOUT.replace("\n", " ").strip()]))
    return {
        "openapi": "3.1.0",
        "info": {"title": info.title, "version": info.version, "description": about},
        "tags": [_tag(service, names, comments) for service in services.values()],
        "paths": writer.paths,
        "components": writer.components(),
    }


class _Writer:
    """Collects operations, and the schemas that they need."""

    def __init__(self, comments: Comments, both: frozenset[str], names: Mapping[str, str]) -> None:
        self.paths: dict[str, dict[str, Any]] = {}
        self._names = names
        self._ids: set[str] = set()
        self._comments = comments
        self._sent = Schemas(comments, answered=False, both=both)
        self._answered = Schemas(comments, answered=True, both=both)
        self._spellings = Spellings()
        self._errors = error_responses()

    def add(self, method: _Method) -> None:
        """Adds an operation for each of the method's bindings."""
        for number, rule in method.bindings():
            verb, template = _pattern(rule)
            if verb in _VERBS:
                path = read_template(template, lambda field: json_path(method.request, field))
                path = self._spellings.spell(verb, path)
                self.paths.setdefault(path.text, {})[verb] = self._operation(method, number, rule, path)

    def components(self) -> dict[str, Any]:
        """What the operations refer to."""
        schemas = error_schemas(self._sent) | self._sent.components | self._answered.components
        return {"schemas": dict(sorted(schemas.items())), "responses": self._errors}

    def _operation(self, method: _Method, number: int, rule: HttpRule, path: Path) -> dict[str, Any]:
        comment = self._comments.of(method.full_name)
        service = self._names[method.service.full_name]
        name = f"{service}_{method.proto.name}"
        operation: dict[str, Any] = {
            "operationId": self._id(name if number == 1 else f"{name}_{number}"),
            "tags": [service],
            "summary": first_sentence(comment) or method.proto.name,
            "description": comment or method.proto.name,
        }
        parameters = [
            *path_parameters(method.request, path, self._sent),
            *query_parameters(method.request, self._sent, path.bound, rule.body),
        ]
        if parameters:
            operation["parameters"] = parameters
        if rule.body:
            operation["requestBody"] = self._request_body(method, rule, path)
        errors = {name: {"$ref": f"#/components/responses/{name}"} for name in self._errors}
        operation["responses"] = {"200": self._answer(method, rule), **errors}
        return operation

    def _id(self, name: str) -> str:
        """One that no operation has: a method may be called as another one's second binding is."""
        while name in self._ids:
            name += "_"
        self._ids.add(name)
        return name

    def _request_body(self, method: _Method, rule: HttpRule, path: Path) -> dict[str, Any]:
        schema: Schema
        if rule.body != "*":
            schema = self._sent.field(method.request.fields_by_name[rule.body])
        elif path.bound:
            schema = self._sent.object(method.request, leave_out=path.bound)
        else:
            schema = self._sent.message(method.request)
        if method.proto.client_streaming:
            return {"description": _LINES_IN, "required": True, "content": {LINES: {"schema": schema}}}
        return {"required": True, "content": {JSON: {"schema": schema}}}

    def _answer(self, method: _Method, rule: HttpRule) -> dict[str, Any]:
        schema: Schema
        if rule.response_body:
            schema = self._answered.field(method.response.fields_by_name[rule.response_body])
        else:
            schema = self._answered.message(method.response)
        if method.proto.server_streaming:
            line = {"oneOf": [_keyed("result", schema), _keyed("error", error_schema())]}
            return {"description": _LINES_OUT.replace("\n", " "), "content": {LINES: {"schema": line}}}
        return {"description": "Success.", "content": {JSON: {"schema": schema}}}


def _methods(files: Sequence[FileDescriptorProto], pool: DescriptorPool) -> Iterator[_Method]:
    for file in files:
        for service in file.service:
            found = pool.FindServiceByName(f"{file.package}.{service.name}".lstrip("."))
            for proto in service.method:
                described = found.methods_by_name[proto.name]
                yield _Method(found, proto, described.input_type, described.output_type)


def _grpc_path(method: _Method) -> str:
    return f"/{method.service.full_name}/{method.proto.name}"


def _pattern(rule: HttpRule) -> tuple[str, str]:
    """The method, in lower case, and the path template."""
    pattern = rule.WhichOneof("pattern")
    if pattern == "custom":
        return rule.custom.kind.lower(), rule.custom.path
    return str(pattern), getattr(rule, pattern or "get")


def _keyed(key: str, schema: Schema) -> Schema:
    return {"type": "object", "properties": {key: schema}, "required": [key], "additionalProperties": False}


def _names(services: Iterable[ServiceDescriptor]) -> dict[str, str]:
    """What each service is called, by its full name: by that where two of them share the short one."""
    full_names: dict[str, list[str]] = {}
    for service in services:
        full_names.setdefault(service.name, []).append(service.full_name)
    return {
        full_name: short if len(those) == 1 else full_name
        for short, those in full_names.items()
        for full_name in those
    }


def _tag(service: ServiceDescriptor, names: Mapping[str, str], comments: Comments) -> dict[str, str]:
    tag = {"name": names[service.full_name]}
    if comment := comments.of(service.full_name):
        tag["description"] = comment
    return tag
