"""Messages as JSON sees them: their fields by all the names that a JSON object may call them.

Made once for each route, in plain dicts: upb's own lookups fail with SystemError on a name that is not UTF-8.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_NUMBER = "a number"
_SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: _NUMBER,
    FieldDescriptor.CPPTYPE_INT64: _NUMBER,
    FieldDescriptor.CPPTYPE_UINT32: _NUMBER,
    FieldDescriptor.CPPTYPE_UINT64: _NUMBER,
    FieldDescriptor.CPPTYPE_DOUBLE: _NUMBER,
    FieldDescriptor.CPPTYPE_FLOAT: _NUMBER,
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_STRING: "a string",
}
_TEXTS = {
    "google.protobuf.Timestamp": 'a time in RFC 3339, such as "2026-01-31T12:00:00Z"',
    "google.protobuf.Duration": 'seconds, such as "1.5s"',
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field, by its proto name. `below` is the shape of the messages in it, None where a path ends: a scalar, a
    map, a well-known type. `expected` says what JSON must hold: the end of a sentence, and all that is to be said
    of a wrong item, unless it is of `json_types`."""

    name: str
    is_list: bool
    below: Shape | None
    expected: str
    json_types: tuple[type, ...]


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
    message = descriptor.message_type
    path_ends = message is None or is_map(message) or is_well_known(message)
    return Field(
        name=descriptor.name,
        is_list=descriptor.is_repeated and not is_map(message),
        below=None if message is None or path_ends else _shape(message, known),
        expected=_expected(descriptor),
        json_types=_json_types(descriptor),
    )


def is_map(message: Descriptor | None) -> bool:
    """Whether fields of this message type are maps."""
    return message is not None and message.GetOptions().map_entry


def is_well_known(message: Descriptor) -> bool:
    """Whether JSON may write such messages in a way of their own."""
    return message.file.package == "google.protobuf"


def _json_types(descriptor: FieldDescriptor) -> tuple[type, ...]:
    if is_map(descriptor.message_type):
        return (dict,)
    if descriptor.is_repeated:
        return (list,)
    message = descriptor.message_type
    if message is not None and message.full_name in _TEXTS:
        return ()
    return (object,) if message is None or is_well_known(message) else (dict,)


def _expected(descriptor: FieldDescriptor) -> str:
    if descriptor.message_type is not None and is_map(descriptor.message_type):
        value = descriptor.message_type.fields_by_name["value"]
        return f"a JSON object in which each value is {_expected_value(value)}"
    if descriptor.is_repeated:
        return f"a JSON array of which each element is {_expected_value(descriptor)}"
    return _expected_value(descriptor)


def _expected_value(descriptor: FieldDescriptor) -> str:
    if descriptor.enum_type is not None:
        return f"a value of {descriptor.enum_type.name}, by name or number"
    if descriptor.message_type is not None:
        return _TEXTS.get(descriptor.message_type.full_name, "a JSON object")
    return _SCALARS[descriptor.cpp_type]
