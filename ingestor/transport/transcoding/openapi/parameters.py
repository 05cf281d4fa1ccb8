"""The parameters of an operation: one for each wildcard of its path, and for each field that its query can set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingestor.transport.transcoding.openapi.paths import Path, Variable
from ingestor.transport.transcoding.openapi.schemas import (
    NULL_VALUE,
    Schemas,
    is_well_known,
    is_wrapper,
    map_entry,
)

Parameter = dict[str, Any]

_IN_A_QUERY = frozenset(
    ("google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask")
)


def json_path(request: Descriptor, path: str) -> str:
    """A field's path in JSON names."""
    return ".".join(field.json_name for field in _fields_on(request, path))


def path_parameters(request: Descriptor, path: Path, schemas: Schemas) -> list[Parameter]:
    """One for each wildcard of the path."""
    return [_path_parameter(request, variable, schemas) for variable in path.variables]


def query_parameters(
    request: Descriptor, schemas: Schemas, bound: frozenset[str], body: str
) -> list[Parameter]:
    """One for each field that neither path nor body set; messages give those of their fields, as `a.b`."""
    if body == "*":
        return []
    return list(_below(request, (), bound | {body}, schemas))


def _path_parameter(request: Descriptor, variable: Variable, schemas: Schemas) -> Parameter:
    schema: dict[str, Any] = {"type": "string"}
    told = ["Any text in this place of the path."]
    if variable.field is not None:
        field = list(_fields_on(request, variable.field))[-1]
        told = [schemas.told_of(field)]
        if variable.whole:
            schema = schemas.element(field)
        else:
            told.append(f"The field is what `{variable.pattern}` stands for in the path.")
    if variable.many:
        told.append("Any number of segments: `/` is sent as it is, not as `%2F`.")
    elif schema == {"type": "string"}:
        schema["minLength"] = 1
    described = "\n\n".join(filter(None, told))
    return _described({"name": variable.name, "in": "path", "required": True, "schema": schema}, described)


def _below(
    message: Descriptor, above: tuple[FieldDescriptor, ...], taken: frozenset[str], schemas: Schemas
) -> Iterator[Parameter]:
    """Those of a message's fields; `above` is the way to it."""
    for field in message.fields:
        fields = (*above, field)
        if ".".join(each.name for each in fields) not in taken:
            yield from _of_field(fields, taken, schemas)


def _of_field(
    fields: tuple[FieldDescriptor, ...], taken: frozenset[str], schemas: Schemas
) -> Iterator[Parameter]:
    """Those of the last of these fields, each of which is in the message of the one before it."""
    field = fields[-1]
    name, below = ".".join(each.json_name for each in fields), field.message_type
    if (entry := map_entry(field)) is not None:
        if entry.fields_by_name["value"].message_type is None:
            yield _map_parameter(name, field, schemas)
    elif below is None or below.full_name in _IN_A_QUERY or is_wrapper(below):
        if field.enum_type is None or field.enum_type.full_name != NULL_VALUE:
            yield _query_parameter(name, field, schemas)
    elif not field.is_repeated and not is_well_known(below) and not _entered(below, fields):
        yield from _below(below, fields, taken, schemas)


def _entered(message: Descriptor, fields: tuple[FieldDescriptor, ...]) -> bool:
    """Whether these fields lead through this type already: a message may hold itself."""
    return message in [each.containing_type for each in fields]


def _query_parameter(name: str, field: FieldDescriptor, schemas: Schemas) -> Parameter:
    schema = schemas.element(field)
    parameter: Parameter = {"name": name, "in": "query"}
    if field.is_repeated:
        parameter |= {"style": "form", "explode": True}
        schema = {"type": "array", "items": schema}
    return _described({**parameter, "schema": schema}, schemas.told_of(field))


def _map_parameter(name: str, field: FieldDescriptor, schemas: Schemas) -> Parameter:
    parameter = {"name": name, "in": "query", "style": "deepObject", "explode": True}
    told = "\n\n".join(filter(None, [schemas.told_of(field), f"An entry is written `{name}[key]=value`."]))
    return _described({**parameter, "schema": schemas.unmarked(field)}, told)


def _described(parameter: Parameter, text: str) -> Parameter:
    return {**parameter, "description": text} if text else parameter


def _fields_on(request: Descriptor, path: str) -> Iterator[FieldDescriptor]:
    at: Descriptor | None = request
    for name in path.split("."):
        if at is None or name not in at.fields_by_name:
            msg = f"{request.full_name} has no field {path}"
            raise ValueError(msg)
        field = at.fields_by_name[name]
        yield field
        at = field.message_type
