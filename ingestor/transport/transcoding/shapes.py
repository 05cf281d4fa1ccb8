"""Messages as JSON sees them: their fields by all the names that a JSON object may call them.

Made once for each route, in plain dicts: upb's own lookups fail with SystemError on a name that is not UTF-8.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

ANY = "google.protobuf.Any"
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_SCALARS = {
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "a string",
}
# Of values of these types nothing but what they are has to be seen.
_PLAIN: dict[int, type] = {
    FieldDescriptor.TYPE_DOUBLE: float,
    FieldDescriptor.TYPE_STRING: str,
}
# What JSON writes in a way of their own.
_SPECIAL = {
    "google.protobuf.Timestamp": 'a time in RFC 3339, such as "2026-01-31T12:00:00Z"',
    "google.protobuf.Duration": 'seconds, such as "1.5s"',
    "google.protobuf.FieldMask": "field paths in JSON names, with commas between them",
    "google.protobuf.Struct": "a JSON object",
    "google.protobuf.ListValue": "a JSON array",
    "google.protobuf.Value": "a JSON value",
    ANY: "a JSON object with the URL of its type as @type",
}
_WRAPPERS = "google/protobuf/wrappers.proto"


@dataclass(frozen=True, slots=True)
class Field:
    """One field, by its proto name. `below` is the shape of the messages in it, None where a path ends: a scalar, a
    well-known type. `expected` says what JSON must hold, the end of a sentence, and `json_types` of which types it
    is; `expected_one` says it of an element of a list or a map, `expected_key` of a map's keys. `plain` is the type
    of elements that are right whatever they are. `oneof` is empty where it is in none."""

    name: str
    is_list: bool
    is_map: bool
    below: Shape | None
    expected: str
    expected_one: str
    expected_key: str
    json_types: tuple[type, ...]
    plain: type | None
    oneof: str
    any: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """One message type. `fields` holds each field under its JSON name and under its proto name; `json_names` is
    for error messages."""

    name: str
    json_names: str
    message_class: type[Message]
    fields: dict[str, Field] = field(default_factory=dict, repr=False)


def shape_of(descriptor: Descriptor) -> Shape:
    """The shape of this message type, with those below it."""
    return _shape(descriptor, {})


def _shape(descriptor: Descriptor, known: dict[str, Shape]) -> Shape:
    if descriptor.full_name in known:
        return known[descriptor.full_name]  # perhaps still being made: a type may hold itself
    names = ", ".join(each.json_name for each in descriptor.fields)
    shape = known[descriptor.full_name] = Shape(descriptor.name, names, GetMessageClass(descriptor))
    for each in descriptor.fields:
        shape.fields[each.name] = _field(each, known)
    # Last, for a JSON name goes before another field's proto name.
    shape.fields.update({each.json_name: shape.fields[each.name] for each in descriptor.fields})
    return shape


def _field(descriptor: FieldDescriptor, known: dict[str, Shape]) -> Field:
    one, entry = descriptor, descriptor.message_type
    key = ""
    if entry is not None and is_map(entry):
        one = entry.fields_by_name["value"]
        key = _expected_one(entry.fields_by_name["key"])
    message = one.message_type
    oneof = descriptor.containing_oneof
    return Field(
        name=descriptor.name,
        is_list=descriptor.is_repeated and not key,
        is_map=bool(key),
        below=None if message is None or _is_special(message) else _shape(message, known),
        expected=_expected(descriptor, one),
        expected_one=_expected_one(one),
        expected_key=key,
        json_types=_json_types(descriptor),
        plain=_PLAIN.get(one.type),
        oneof="" if oneof is None else oneof.name,
        any=message is not None and message.full_name == ANY,
    )


def is_map(message: Descriptor | None) -> bool:
    """Whether fields of this message type are maps."""
    return message is not None and message.GetOptions().map_entry


def is_well_known(message: Descriptor) -> bool:
    """Whether JSON may write such messages in a way of their own."""
    return message.file.package == "google.protobuf"


def _is_special(message: Descriptor) -> bool:
    return message.full_name in _SPECIAL or message.file.name == _WRAPPERS


def _json_types(descriptor: FieldDescriptor) -> tuple[type, ...]:
    if is_map(descriptor.message_type):
        return (dict,)
    if descriptor.is_repeated:
        return (list,)
    message = descriptor.message_type
    return (object,) if message is None or _is_special(message) else (dict,)


def _expected(descriptor: FieldDescriptor, one: FieldDescriptor) -> str:
    if is_map(descriptor.message_type):
        return f"a JSON object in which each value is {_expected_one(one)}"
    if descriptor.is_repeated:
        return f"a JSON array of which each element is {_expected_one(one)}"
    return _expected_one(one)


def _expected_one(descriptor: FieldDescriptor) -> str:
    message = descriptor.message_type
    if message is not None:
        if message.file.name == _WRAPPERS:
            return _expected_one(message.fields_by_name["value"])
        return _SPECIAL.get(message.full_name, "a JSON object")
    if descriptor.enum_type is not None:
        return f"a value of {descriptor.enum_type.name}, by name or number"
    if descriptor.cpp_type in _INTEGERS:
        least, most = _INTEGERS[descriptor.cpp_type]
        return f"an integer from {least} to {most}"
    return "base64" if descriptor.type == FieldDescriptor.TYPE_BYTES else _SCALARS[descriptor.cpp_type]
