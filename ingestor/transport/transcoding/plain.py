"""JSON that needs no rule of proto3 JSON to be understood: fields under their JSON names, values of the expected
JSON types, times in UTC. Most senders write nothing else.

Such bodies are read by orjson, ten times as fast as by protobuf's reader, which decides on everything else: there
is one authority on what is right, and on what is said of the rest. orjson keeps the last of two keys alike in one
object, so they are counted in the text as well, by their quotes: a text has more than what orjson made of it when a
key stands twice, or a string has a quote within, and never less.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson
from betterproto2 import Message as TypedMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingestor.transport.messages import typed_class, typed_name, unset_values

# What is longer is not read for nothing, and is not worth hurrying.
_BYTES_MAX = 4096
# Without the hour 24, which Python reads as the next day's first from 3.14 on, and protobuf not at all.
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


class NotPlainError(Exception):
    """Left to protobuf's reader."""


class PlainReader:
    """Reads objects straight into typed messages, as far as they are short and their fields are strings, doubles,
    enums by name, times and maps of strings."""

    def __init__(self, descriptor: Descriptor, typed: type[TypedMessage]) -> None:
        self._typed = typed
        # Our name, the reader, and how many quotes key and value have in the text, without those within a map.
        self._fields: dict[str, tuple[str, Callable[[Any], Any], int]] = {}
        for field in descriptor.fields:
            alone = field.containing_oneof is None or len(field.containing_oneof.fields) == 1
            read = _enum(field, typed_class(field, typed)) if field.enum_type is not None else _reader(field)
            if alone and read is not None:
                quotes = 2 if read is _number or read is _map else 4
                self._fields[field.json_name] = (typed_name(field, typed), read, quotes)
        self._maps = [field.json_name for field in descriptor.fields if is_map(field)]
        # What betterproto2 would make anew for each field that is not given, in twice the time.
        self._unset = unset_values(typed) if self._fields else {}

    def read(self, body: bytes) -> TypedMessage | None:
        """The message that this JSON text says; None when it is not plain."""
        if len(body) > _BYTES_MAX:
            return None
        try:
            value = orjson.loads(body)
            if type(value) is not dict:
                return None
            fields = self._unset.copy()
            quotes = 0
            for key, item in value.items():
                name, read, own = self._fields[key]
                fields[name] = read(item)
                quotes += own
        except (NotPlainError, KeyError, ValueError, OverflowError):
            return None
        for name in self._maps:
            if name in value:
                quotes += 4 * len(value[name])
        return self._typed(**fields) if quotes == body.count(b'"') else None


def is_map(field: FieldDescriptor) -> bool:
    """Whether it is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _reader(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    message = field.message_type
    if message is not None and is_map(field):
        kinds = {each.type for each in message.fields}
        return _map if kinds == {FieldDescriptor.TYPE_STRING} else None
    if field.is_repeated:
        return None
    if message is not None:
        return _time if message.full_name == "google.protobuf.Timestamp" else None
    return {FieldDescriptor.TYPE_STRING: _text, FieldDescriptor.TYPE_DOUBLE: _number}.get(field.type)


def _enum(field: FieldDescriptor, kind: type[Any]) -> Callable[[Any], Any] | None:
    if field.is_repeated or field.enum_type is None:
        return None
    values = {value.name: kind(value.number) for value in field.enum_type.values}

    def read(value: Any) -> Any:
        if type(value) is not str or value not in values:
            raise NotPlainError
        return values[value]

    return read


def _text(value: Any) -> str:
    if type(value) is not str:
        raise NotPlainError
    return value


def _number(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise NotPlainError
    number = float(value)
    if not math.isfinite(number):
        raise NotPlainError
    return number


def _map(value: Any) -> Mapping[str, str]:
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise NotPlainError
    return value


def _time(value: Any) -> datetime:
    """A time as proto3 JSON writes it. What is finer than a microsecond is cut off, as everywhere."""
    if type(value) is not str or not _TIME.fullmatch(value):
        raise NotPlainError
    return datetime.fromisoformat(value)
