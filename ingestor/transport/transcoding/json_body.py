"""Proto3 JSON (https://protobuf.dev/programming-guides/json/) to messages and back, by protobuf's own code.

An unknown field is an error: who writes `timestamp` for `time` would otherwise store the wrong time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ingestor.errors import FieldViolation, Invalid


def parse_json(body: bytes, message_class: type[Message], pool: DescriptorPool) -> Message:
    """The message that this JSON text says; an empty body says an empty one. Raises Invalid, with the path
    (in proto names) of the field that is wrong."""
    if not body.strip():
        return message_class()
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        msg = f"the body is not UTF-8: {error.reason} at byte {error.start}"
        raise Invalid(msg) from None
    try:
        return json_format.Parse(text, message_class(), descriptor_pool=pool)
    except json_format.ParseError as error:
        raise _explain(text, message_class, pool, error) from None


def print_json(message: Message, pool: DescriptorPool) -> str:
    """The message as JSON text, zeros and empty lists shown."""
    value = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, descriptor_pool=pool
    )
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _explain(
    text: str, message_class: type[Message], pool: DescriptorPool, error: json_format.ParseError
) -> Invalid:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Invalid(f"the body is not JSON: {_first_line(error)}")
    if not isinstance(value, dict):
        return Invalid("the body must be a JSON object")
    for violation in _violations(value, _descriptor(message_class), pool):
        return Invalid.fields([violation])
    return Invalid(_first_line(error))  # such as a key that stands twice


def _violations(
    value: dict[str, Any], descriptor: Descriptor, pool: DescriptorPool
) -> Iterator[FieldViolation]:
    """Finds what json_format rejects by asking it again, field by field: its messages are prose, and name a
    path in their own way. Costs at most one more parse for each level of nesting."""
    for name, item in value.items():
        field = _field(descriptor, name)
        if field is None:
            yield FieldViolation(name, f"is no field of {descriptor.name} (it has {_names(descriptor)})")
        elif (problem := _problem(descriptor, name, item, pool)) is not None:
            yield from _within(field, item, problem, pool)


def _within(
    field: FieldDescriptor, item: Any, problem: str, pool: DescriptorPool
) -> Iterator[FieldViolation]:
    """Goes on into a message or a list of messages; a scalar, a map and a well-known type end the path."""
    nested = field.message_type
    if nested is None or nested.GetOptions().map_entry or nested.file.package == "google.protobuf":
        yield FieldViolation(field.name, problem)
        return
    items = list(enumerate(item)) if field.is_repeated and isinstance(item, list) else [(None, item)]
    for index, element in items:
        path = field.name if index is None else f"{field.name}[{index}]"
        if not isinstance(element, dict):
            yield FieldViolation(
                path,
                "must be a JSON object"
                if index is not None or not field.is_repeated
                else "must be a JSON array",
            )
            return
        for violation in _violations(element, nested, pool):
            yield FieldViolation(f"{path}.{violation.field}", violation.description)
            return


def _problem(descriptor: Descriptor, name: str, item: Any, pool: DescriptorPool) -> str | None:
    try:
        json_format.ParseDict({name: item}, GetMessageClass(descriptor)(), descriptor_pool=pool)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return _first_line(error)
    return None


def _descriptor(message_class: type[Message]) -> Descriptor:
    return message_class.DESCRIPTOR  # type: ignore[return-value] # upb's own class, alike


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    by_json_name = {field.json_name: field for field in descriptor.fields}
    return by_json_name.get(name) or descriptor.fields_by_name.get(name)


def _names(descriptor: Descriptor) -> str:
    return ", ".join(field.json_name for field in descriptor.fields)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
