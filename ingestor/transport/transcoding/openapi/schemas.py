"""JSON Schemas (2020-12, as OpenAPI 3.1 has them) of messages in proto3 JSON.

A message has one schema for what is sent and one for what is answered. The first says the form that everybody
should send: the server takes more, as proto3 JSON wants it (proto names, null for unset, numbers as strings).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from ingestor.transport.transcoding.openapi.comments import Comments

Schema = dict[str, Any]

_KEY_SIGNED, _KEY_UNSIGNED = "^(0|-?[1-9][0-9]{0,18})$", "^(0|[1-9][0-9]{0,19})$"
_DIGITS_SIGNED, _DIGITS_UNSIGNED = "^-?[0-9]{1,19}$", "^[0-9]{1,20}$"
# json_format reads up to the largest float, and prints that with the fewest digits that say it: a little more.
_FLOAT_MAX_READ, _FLOAT_MAX_PRINTED = 3.4028234663852886e38, 3.4028235e38
_NOT_FINITE: Schema = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}
_INT32: Schema = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32: Schema = {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 2**32 - 1}
_SCALARS: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_UINT32: _UINT32,
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"oneOf": [{"type": "number", "format": "double"}, _NOT_FINITE]},
}
_LONG: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT64: {"format": "int64", "pattern": _DIGITS_SIGNED, "examples": ["1"]},
    FieldDescriptor.CPPTYPE_UINT64: {"format": "uint64", "pattern": _DIGITS_UNSIGNED, "examples": ["1"]},
}
_LONG_RANGE: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT64: {"minimum": -(2**63), "maximum": 2**63 - 1},
    FieldDescriptor.CPPTYPE_UINT64: {"minimum": 0, "maximum": 2**64 - 1},
}
_ANY: Schema = {
    "type": "object",
    "description": "A message with the URL of its type.",
    "properties": {
        "@type": {"type": "string", "description": "Ends in the full name of the message's type."}
    },
    "required": ["@type"],
    "additionalProperties": True,
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$",
        "examples": ["1.5s"],
    },
    "google.protobuf.FieldMask": {
        "type": "string",
        "pattern": "^[A-Za-z0-9.,]*$",
        "examples": ["name,address.street"],
    },
    "google.protobuf.Empty": {"type": "object", "additionalProperties": False},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Value": {},
    "google.protobuf.Any": _ANY,
}
_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
NULL_VALUE = "google.protobuf.NullValue"


class Schemas:
    """The schemas of one direction, and what they refer to by name. `both` has the full names of messages that go
    in both directions."""

    def __init__(self, comments: Comments, *, answered: bool, both: frozenset[str] = frozenset()) -> None:
        self._comments = comments
        self._answered = answered
        self._both = both
        self.components: dict[str, Schema] = {}

    def message(self, descriptor: Descriptor) -> Schema:
        """The schema of a message: a reference, or what a well-known type is in JSON."""
        if descriptor.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[descriptor.full_name])
        if descriptor.full_name in _WRAPPERS:
            return _nullable(self.value(descriptor.fields_by_name["value"]))
        name = descriptor.full_name
        if name in self._both:
            name += ".Output" if self._answered else ".Input"
        if name not in self.components:
            self.components[name] = {}  # known before it is made: a message may hold itself
            self.components[name].update(self.object(descriptor))
        return _reference(name)

    def object(self, descriptor: Descriptor, leave_out: Iterable[str] = ()) -> Schema:
        """The schema of a message itself, without the fields of these names."""
        out = set(leave_out)
        fields = [field for field in descriptor.fields if field.name not in out]
        schema: Schema = {"type": "object", "title": descriptor.name}
        if comment := self._comments.of(descriptor.full_name):
            schema["description"] = comment
        schema["properties"] = {field.json_name: self.field(field) for field in fields}
        if self._answered:
            if always := [field.json_name for field in fields if not field.has_presence]:
                schema["required"] = always
        else:
            schema["additionalProperties"] = False
        if choices := [choice for oneof in descriptor.oneofs if (choice := _at_most_one(oneof, out))]:
            schema["allOf"] = choices
        return schema

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field, with its comment."""
        schema = self.unmarked(field)
        if text := self.told_of(field):
            schema["description"] = text
        return schema

    def told_of(self, field: FieldDescriptor) -> str:
        """What is to be said of a field: its comment, and with which others it shares a oneof."""
        oneof = field.containing_oneof
        others = (
            []
            if oneof is None
            else [f"`{each.json_name}`" for each in oneof.fields if each.name != field.name]
        )
        shared = f"At most one of it and {', '.join(others)} is set." if others else ""
        return "\n\n".join(filter(None, [self._comments.of(field.full_name), shared]))

    def value(self, field: FieldDescriptor) -> Schema:
        """The schema of one value of a field, which may be a list or a map of such."""
        if field.enum_type is not None:
            return self._enum(field.enum_type) if not self._answered else self._answered_enum(field.enum_type)
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.cpp_type in _LONG:
            kinds: Schema = {"type": "string"}
            if not self._answered:
                kinds = {"type": ["string", "integer"], **_LONG_RANGE[field.cpp_type]}
            return kinds | _LONG[field.cpp_type]
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "format": "byte", "contentEncoding": "base64"}
        if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
            return _float(_FLOAT_MAX_PRINTED if self._answered else _FLOAT_MAX_READ)
        return dict(_SCALARS.get(field.cpp_type, {"type": "string"}))

    def element(self, field: FieldDescriptor) -> Schema:
        """The same of an element of a list, of a map, or of a query, where null is no value."""
        if field.message_type is not None and is_wrapper(field.message_type):
            field = field.message_type.fields_by_name["value"]
        return self.value(field)

    def unmarked(self, field: FieldDescriptor) -> Schema:
        """The same without its comment."""
        if (entry := map_entry(field)) is not None:
            key, value = (entry.fields_by_name[name] for name in ("key", "value"))
            return {"type": "object", **_keys(key), "additionalProperties": self.element(value)}
        if field.is_repeated:
            return {"type": "array", "items": self.element(field)}
        return self.value(field)

    def _answered_enum(self, enum: EnumDescriptor) -> Schema:
        """A value without a name, which whoever sent it may know, is answered as its number."""
        named = self._enum(enum)
        return named if enum.full_name == NULL_VALUE else {"anyOf": [named, dict(_INT32)]}

    def _enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == NULL_VALUE:
            return {"type": "null"}
        if enum.full_name not in self.components:
            values = [(value.name, self._comments.of(_value_name(enum, value.name))) for value in enum.values]
            told = [f"- `{name}`: {comment}" for name, comment in values if comment]
            schema: Schema = {"type": "string", "title": enum.name}
            if text := "\n\n".join(filter(None, [self._comments.of(enum.full_name), "\n".join(told)])):
                schema["description"] = text
            self.components[enum.full_name] = {**schema, "enum": [name for name, _ in values]}
        return _reference(enum.full_name)


def reachable(descriptors: Iterable[Descriptor]) -> frozenset[str]:
    """The full names of these messages and of all in their fields."""
    found: set[str] = set()
    left = list(descriptors)
    while left:
        descriptor = left.pop()
        if descriptor.full_name not in found:
            found.add(descriptor.full_name)
            left.extend(field.message_type for field in descriptor.fields if field.message_type is not None)
    return frozenset(found)


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """The message of a map's entries; None where the field is no map."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def is_wrapper(descriptor: Descriptor) -> bool:
    """Whether it is one of google/protobuf/wrappers.proto."""
    return descriptor.full_name in _WRAPPERS


def is_well_known(descriptor: Descriptor) -> bool:
    """Whether JSON writes it in a way of its own, and not as an object of its fields."""
    return descriptor.full_name in _WELL_KNOWN or is_wrapper(descriptor)


def _float(largest: float) -> Schema:
    number: Schema = {"type": "number", "format": "float", "minimum": -largest, "maximum": largest}
    return {"oneOf": [number, _NOT_FINITE]}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _nullable(schema: Schema) -> Schema:
    if "oneOf" in schema:
        return {**schema, "oneOf": [*schema["oneOf"], {"type": "null"}]}
    kinds = schema["type"]
    return {**schema, "type": [*(kinds if isinstance(kinds, list) else [kinds]), "null"]}


def _keys(key: FieldDescriptor) -> Schema:
    if key.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return {}
    if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"propertyNames": {"enum": ["true", "false"]}}
    unsigned = key.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    return {"propertyNames": {"pattern": _KEY_UNSIGNED if unsigned else _KEY_SIGNED}}


def _at_most_one(oneof: OneofDescriptor, left_out: set[str]) -> Schema:
    each = [{"required": [field.json_name]} for field in oneof.fields if field.name not in left_out]
    return {"oneOf": [*each, {"not": {"anyOf": each}}]} if len(each) > 1 else {}


def _value_name(enum: EnumDescriptor, value: str) -> str:
    """The full name of a value, which stands beside its enum."""
    scope, _, _ = enum.full_name.rpartition(".")
    return f"{scope}.{value}" if scope else value
