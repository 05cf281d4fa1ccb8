"""Finds what protobuf's json_format rejected in a JSON body, and says it in a line for the caller.

json_format's own messages are prose around a path of its own kind, some of them Python's; so it is asked again,
piece by piece, until the piece is found. That costs at most one more parse for each level of nesting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool

from ingestor.errors import FieldViolation
from ingestor.transport.transcoding.printable import printable
from ingestor.transport.transcoding.shapes import Field, Shape

REJECTIONS = (
    json_format.ParseError,
    ArithmeticError,  # float() of an integer of 400 digits, int() of infinity
    AttributeError,
    LookupError,
    RecursionError,
    SystemError,  # upb, asked for a name that is not UTF-8
    TypeError,
    ValueError,
)
"""What ParseDict raises for what a caller sent. Its documentation knows the first alone; json_format.Parse
catches Exception for the rest."""

_DESCRIPTION_LENGTH_MAX = 200
_CONTAINERS = (list, dict)


def too_many_elements(value: dict[str, Any], shape: Shape, elements_max: int) -> FieldViolation | None:
    """The first list or map of this message with more than `elements_max` elements, if there is one."""
    for name, item in value.items():
        if not isinstance(item, _CONTAINERS) or (field := shape.fields.get(name)) is None:
            continue
        if len(item) > elements_max:
            problem = f"has too many elements, {elements_max} at most: send smaller batches"
            return FieldViolation(field.name, problem)
        if field.below is None:
            continue
        for path, element in _elements(field, item):
            if isinstance(element, dict) and (found := too_many_elements(element, field.below, elements_max)):
                return found.within(path)
    return None


def find_fault(value: dict[str, Any], shape: Shape, pool: DescriptorPool) -> FieldViolation | None:
    """The first field that is wrong, with its path in proto names."""
    for name, item in value.items():
        field = shape.fields.get(name)
        if field is None:
            problem = f"is no field of {shape.name} (it has {shape.json_names})"
            return FieldViolation(printable(name), problem)
        if found := _fault_of_field(name, item, field, shape, pool):
            return found
    return None


def _fault_of_field(
    name: str, item: Any, field: Field, shape: Shape, pool: DescriptorPool
) -> FieldViolation | None:
    if field.below is not None and isinstance(item, list if field.is_list else dict):
        return _fault_below(item, field, field.below, pool)
    if error := _rejection({name: item}, shape, pool):
        return FieldViolation(field.name, _description(error, name, item, field, shape))
    return None


def _fault_below(item: Any, field: Field, below: Shape, pool: DescriptorPool) -> FieldViolation | None:
    """Goes on into the message, or into the first message of the list that is wrong."""
    for path, element in _elements(field, item):
        if not isinstance(element, dict):
            return FieldViolation(path, "must be a JSON object")
        if error := _rejection(element, below, pool):
            found = find_fault(element, below, pool) or FieldViolation("", summary(error, below))
            return found.within(path)
    return None


def _elements(field: Field, item: Any) -> Iterator[tuple[str, Any]]:
    """What is in the field, each with its path."""
    if field.is_list and isinstance(item, list):
        for index, element in enumerate(item):
            yield f"{field.name}[{index}]", element
    else:
        yield field.name, item


def _rejection(value: dict[str, Any], shape: Shape, pool: DescriptorPool) -> Exception | None:
    try:
        json_format.ParseDict(value, shape.message_class(), descriptor_pool=pool)
    except REJECTIONS as error:
        return error
    return None


def _description(error: Exception, name: str, item: Any, field: Field, shape: Shape) -> str:
    if isinstance(error, ArithmeticError):
        return "is out of range"
    if not isinstance(item, field.json_types) or _says_python(error):
        return f"must be {field.expected}"
    return _without_path(str(error), name, shape)


def _says_python(error: Exception) -> bool:
    """Of an element of the wrong type json_format tells what Python says of it."""
    return isinstance(error.__cause__, TypeError) or not isinstance(error, json_format.ParseError)


def _without_path(text: str, name: str, shape: Shape) -> str:
    """The middle of "Failed to parse value field: Couldn't parse float: x at LogMetricRequest.value."."""
    text = text.removeprefix(f"Failed to parse {name} field: ")
    said, path, _ = text.rpartition(f" at {shape.name}.{name}")
    said = (said if path else text).rstrip(".")
    return printable(said[:1].lower() + said[1:], _DESCRIPTION_LENGTH_MAX)


def summary(error: Exception, shape: Shape) -> str:
    """What is wrong with the whole message, where no field is to blame: two of one oneof."""
    if isinstance(error, json_format.ParseError):
        return printable(str(error).partition("\n")[0], _DESCRIPTION_LENGTH_MAX)
    return f"can't be read as {shape.name}"
