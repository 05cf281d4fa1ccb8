"""Finds what json_format takes and proto3 JSON does not: `true` for a number, "1_000", a time without its zeros,
bytes with characters that are not base64's, a field under both of its names.

It looks at what json_format took already, and so refuses nothing of its own that is no such laxity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from ingestor.errors import FieldViolation
from ingestor.transport.transcoding.printable import printable
from ingestor.transport.transcoding.shapes import is_map
from ingestor.transport.transcoding.texts import DURATION, NOT_FINITE, NUMBER, TIMESTAMP, fits_float, unbased

_Look = Callable[[Any], FieldViolation | None]

_KEY = re.compile("0|-?[1-9][0-9]*")
_INTEGERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)
_ANYTHING = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
_ANY = "google.protobuf.Any"
_WRAPPERS = "google/protobuf/wrappers.proto"


class Strict:
    """Looks at JSON objects of one message type."""

    def __init__(self, descriptor: Descriptor, pool: DescriptorPool) -> None:
        self._pool = pool
        self._known: dict[str, _Look] = {}
        self.violation = self._message(descriptor)

    def _message(self, descriptor: Descriptor) -> _Look:
        """The look at messages of this type, of which json_format has taken one."""
        if descriptor.full_name in self._known:
            return self._known[descriptor.full_name]
        names: dict[str, tuple[str, _Look | None]] = {}
        json_names = frozenset(field.json_name for field in descriptor.fields)

        def look(value: Any) -> FieldViolation | None:
            if not isinstance(value, dict):  # json_format takes what is empty, be it a list or a string
                return FieldViolation("", "must be a JSON object")
            for name, item in value.items():
                if name not in names:  # "[package.extension]"
                    return FieldViolation("", f"{printable(name)} is an extension, which JSON can't set here")
                field, below = names[name]
                if below is not None and item is not None and (found := below(item)):
                    return _within(field, found)
            return None if json_names.issuperset(value) else _twice(value, names)

        # Known before its fields are: a message may contain itself.
        self._known[descriptor.full_name] = look
        names.update({field.name: (field.name, self._field(field)) for field in descriptor.fields})
        names.update({field.json_name: names[field.name] for field in descriptor.fields})
        return look

    def _field(self, field: FieldDescriptor) -> _Look | None:
        if is_map(field.message_type):
            assert field.message_type is not None
            entry = field.message_type.fields_by_name
            return _map(entry["key"].cpp_type in _INTEGERS, self._value(entry["value"]))
        look = self._value(field)
        return _list(look) if field.is_repeated and look is not None else look

    def _value(self, field: FieldDescriptor) -> _Look | None:
        message = field.message_type
        if message is None:
            return _scalar(field)
        if message.file.name == _WRAPPERS:
            return _scalar(message.fields_by_name["value"])
        if message.full_name in _ANYTHING:
            return _finite
        if message.full_name == _ANY:
            return self._any
        return _TEXTS.get(message.full_name) or self._message(message)

    def _any(self, value: dict[str, Any]) -> FieldViolation | None:
        if not value:
            return None
        within: Descriptor = self._pool.FindMessageTypeByName(value["@type"].rpartition("/")[2])
        if within.file.name == _WRAPPERS:
            look = _scalar(within.fields_by_name["value"])
            return None if look is None else look(value["value"])
        if within.full_name in _ANYTHING:
            return _finite(value["value"])
        if within.full_name == _ANY:
            return self._any(value["value"])
        if within.full_name in _TEXTS:
            return _TEXTS[within.full_name](value["value"])
        return self._message(within)({name: item for name, item in value.items() if name != "@type"})


def _twice(value: dict[str, Any], names: dict[str, tuple[str, _Look | None]]) -> FieldViolation | None:
    seen = set()
    for name in value:
        field = names[name][0]
        if field in seen:
            return FieldViolation(field, "stands twice, under its two names")
        seen.add(field)
    return None


def _list(look: _Look) -> _Look:
    def each(items: list[Any]) -> FieldViolation | None:
        for index, item in enumerate(items):
            if found := look(item):
                return found.within(f"[{index}]")
        return None

    return each


def _within(field: str, found: FieldViolation) -> FieldViolation:
    """The same violation seen from the message: an index or a key stands at its list's name."""
    if found.field.startswith("["):
        return FieldViolation(field + found.field, found.description)
    return found.within(field)


def _map(numbers: bool, look: _Look | None) -> _Look:
    def each(items: dict[str, Any]) -> FieldViolation | None:
        for key, item in items.items():
            path = f'["{printable(key)}"]'
            if numbers and _KEY.fullmatch(key) is None:
                return FieldViolation(path, "has a key that must be an integer in its shortest form")
            if look is not None and (found := look(item)):
                return found.within(path)
        return None

    return each


def _scalar(field: FieldDescriptor) -> _Look | None:
    if field.enum_type is not None:
        return _enum(field)
    if field.cpp_type in _INTEGERS:
        return _integer
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _double
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return _float
    return _bytes if field.type == FieldDescriptor.TYPE_BYTES else None


def _integer(item: Any) -> FieldViolation | None:
    if isinstance(item, str) and NUMBER.fullmatch(item) is None:
        return FieldViolation("", "must be a number")
    return None


def _double(item: Any) -> FieldViolation | None:
    if isinstance(item, float):
        return None
    if isinstance(item, bool) or (
        isinstance(item, str) and item not in NOT_FINITE and not NUMBER.fullmatch(item)
    ):
        return FieldViolation("", "must be a number")
    if item not in NOT_FINITE and math.isinf(float(item)):
        return FieldViolation("", "is out of range")
    return None


def _float(item: Any) -> FieldViolation | None:
    if found := _double(item):
        return found
    return None if item in NOT_FINITE or fits_float(float(item)) else FieldViolation("", "is out of range")


def _enum(field: FieldDescriptor) -> _Look:
    assert field.enum_type is not None
    problem = f"must be a value of {field.enum_type.name}, by name or number"
    names = frozenset(value.name for value in field.enum_type.values)

    def look(item: Any) -> FieldViolation | None:
        if (item in names) if isinstance(item, str) else (type(item) is int):
            return None
        return FieldViolation("", problem)

    return look


def _bytes(item: str) -> FieldViolation | None:
    try:
        unbased(item)
    except ValueError as error:
        return FieldViolation("", str(error))
    return None


def _text(form: re.Pattern[str], expected: str) -> _Look:
    def look(item: str) -> FieldViolation | None:
        return None if form.fullmatch(item) else FieldViolation("", f"must be {expected}")

    return look


_TEXTS = {
    "google.protobuf.Duration": _text(DURATION, 'seconds, such as "1.5s"'),
    "google.protobuf.FieldMask": _text(re.compile(r"[A-Za-z0-9.,]*"), "field paths in JSON names"),
    "google.protobuf.Timestamp": _text(TIMESTAMP, 'a time in RFC 3339, such as "2026-01-31T12:00:00Z"'),
}


def _finite(item: Any) -> FieldViolation | None:
    """Python reads NaN and Infinity without quotes, which JSON has not, and json_format takes them for values."""
    if isinstance(item, float):
        return None if math.isfinite(item) else FieldViolation("", "holds a number that JSON has not")
    items = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return next((found for each in items if (found := _finite(each))), None)
