"""Proto3 JSON (https://protobuf.dev/programming-guides/json/) to messages and back, by protobuf's own code.

An unknown field is an error: who writes `timestamp` for `time` would otherwise store the wrong time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
import pyarrow as pa
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from ingestor.errors import Invalid
from ingestor.transport.transcoding.faults import (
    REJECTIONS,
    find_fault,
    nested_too_deeply,
    too_many_elements,
)
from ingestor.transport.transcoding.json_columns import ColumnReader
from ingestor.transport.transcoding.plain_json import Print
from ingestor.transport.transcoding.printable import printable
from ingestor.transport.transcoding.shapes import shape_of
from ingestor.transport.transcoding.strict import Strict

_NO_LISTS: Mapping[str, bytes] = MappingProxyType({})


class JsonReader:
    """Reads JSON bodies of one message type. No list or map in them may have more than `elements_max` elements."""

    def __init__(self, message_class: type[Message], pool: DescriptorPool, *, elements_max: int) -> None:
        self.descriptor: Descriptor = message_class.DESCRIPTOR  # type: ignore[assignment] # upb's own class, alike
        self._shape = shape_of(self.descriptor)
        self._pool = pool
        self._strict = Strict(self.descriptor, pool)
        self._elements_max = elements_max

    def read(self, body: bytes, field: str = "") -> Message:
        """The message that this JSON text says, or of which it says one field (by its JSON name); an empty body
        says an empty message. Raises Invalid, with the path (in proto names) of the field that is wrong."""
        if not body.strip():
            return self.empty()
        value = _load(body)
        if field:
            return self._parse({field: value})
        if not isinstance(value, dict):
            msg = "the body must be a JSON object"
            raise Invalid(msg)
        return self._parse(value)

    def empty(self) -> Message:
        """A message with nothing in it."""
        return self._shape.message_class()

    def read_columns(self, body: bytes, columns: ColumnReader) -> Message | pa.RecordBatch:
        """As columns where the body is plain enough for `columns`, else as `read` reads it."""
        batch = columns.read(body)
        return self.read(body) if batch is None else batch

    def _parse(self, value: dict[str, Any]) -> Message:
        # Before ParseDict: it takes 10 µs even for an element of two characters.
        if violation := too_many_elements(value, self._shape, self._elements_max):
            raise Invalid.fields([violation])
        try:
            message = json_format.ParseDict(value, self._shape.message_class(), descriptor_pool=self._pool)
        except REJECTIONS:
            raise self._explain(value) from None
        if violation := self._strict.violation(value):
            raise Invalid.fields([violation])
        return message

    def _explain(self, value: dict[str, Any]) -> Invalid:
        # A value whose fields are right one by one is too deep where they hold JSON of any kind.
        violation = find_fault(value, self._shape, self._pool)
        return nested_too_deeply() if violation is None else Invalid.fields([violation])


def print_json(message: Message, pool: DescriptorPool, field: str = "", plain: Print | None = None) -> bytes:
    """The message as JSON text, or one field of it (by its JSON name), zeros and empty lists shown. `plain` is the
    printer of its type where that is plain."""
    if plain is not None:
        return print_plain(message, plain, field)
    value = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, descriptor_pool=pool
    )
    text = json.dumps(value.get(field) if field else value, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def print_plain(
    message: Message, plain: Print, field: str = "", lists: Mapping[str, bytes] = _NO_LISTS
) -> bytes:
    """The same by the printer of its type; `lists` are the texts of those lists, by JSON name, that the message
    lacks."""
    value = plain(message)
    for name, text in lists.items():
        value[name] = orjson.Fragment(text)
    return orjson.dumps(value.get(field) if field else value)


def _load(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), object_pairs_hook=_without_twins)
    except UnicodeDecodeError as error:
        msg = f"the body is not UTF-8: {error.reason} at byte {error.start}"
        raise Invalid(msg) from None
    except json.JSONDecodeError as error:
        msg = f"the body is not JSON: {printable(str(error))}"
        raise Invalid(msg) from None
    except ValueError:  # Python reads no integers of thousands of digits
        msg = "the body holds a number of too many digits"
        raise Invalid(msg) from None
    except RecursionError:
        raise nested_too_deeply() from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, unless a key stands in it twice: json.loads would keep the last without a word."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twin = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        msg = f"the key {printable(twin)} stands twice in one JSON object"
        raise Invalid(msg)
    return value
