"""Finds what protobuf's json_format rejected in a JSON body, and says it in a line for the caller: the field's
whole path, and what it must be.

json_format's own messages are prose around a path of its own kind, some of them Python's, and none of them is told;
it is asked again of single values alone, so that the search costs no more than the parse did.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool

from ingestor.errors import FieldViolation, Invalid
from ingestor.transport.transcoding.printable import printable
from ingestor.transport.transcoding.shapes import Field, Shape, is_well_known, shape_of

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

_CONTAINERS = (list, dict)
# What fields of JSON of any kind may hold.
_FREE: dict[str, tuple[type, ...]] = {
    "a JSON array": (list,),
    "a JSON object": (dict,),
    "a JSON value": (list, dict, int, str),
}
# Messages in one another, as protobuf's parsers count them.
_DEPTH_MAX = 100
# Values that JSON's keys are read as, of maps with integers, booleans and strings.
_KEYS = {"true or false": "true", "a string": ""}


def nested_too_deeply() -> Invalid:
    """The refusal of such a body."""
    return Invalid("the body is nested too deeply")


def too_many_elements(
    value: dict[str, Any], shape: Shape, elements_max: int, depth: int = 1
) -> FieldViolation | None:
    """The first list or map of this message with more than `elements_max` elements, if there is one. Raises Invalid
    for messages that are too deep in one another."""
    if depth > _DEPTH_MAX:
        raise nested_too_deeply()
    for name, item in value.items():
        if not isinstance(item, _CONTAINERS) or (field := shape.fields.get(name)) is None:
            continue
        if len(item) > elements_max:
            problem = f"has too many elements, {elements_max} at most: send smaller batches"
            return FieldViolation(field.name, problem)
        if field.below is None:
            continue
        for path, element, _ in _elements(name, item, field):
            if isinstance(element, dict) and (
                found := too_many_elements(element, field.below, elements_max, depth + 1)
            ):
                return found.within(path)
    return None


def find_fault(value: dict[str, Any], shape: Shape, pool: DescriptorPool) -> FieldViolation | None:
    """The first field that is wrong, with its path in proto names."""
    claimed: dict[str, str] = {}
    for name, item in value.items():
        field = shape.fields.get(name)
        if field is None:
            problem = f"is no field of {shape.name} (it has {shape.json_names or 'none'})"
            return FieldViolation(printable(name), problem)
        if item is None:
            continue
        if field.oneof and (first := claimed.setdefault(field.oneof, field.name)) != field.name:
            return FieldViolation(field.name, f"excludes {first}, which is given, too")
        if not isinstance(item, field.json_types):
            return FieldViolation(field.name, f"must be {field.expected}")
        if found := _fault_of_field(name, item, field, shape, pool):
            return found
    return None


def _fault_of_field(
    name: str, item: Any, field: Field, shape: Shape, pool: DescriptorPool
) -> FieldViolation | None:
    for path, element, alone in _elements(name, item, field):
        if field.is_map and (problem := _fault_of_key(name, alone, field, shape, pool)):
            return FieldViolation(path, problem)
        if field.below is None:
            if not _is_plain(element, field) and (error := _rejection(alone, shape, pool)):
                return _fault_of_value(element, field, error, pool).within(path)
        elif not isinstance(element, dict):
            return FieldViolation(path, "must be a JSON object")
        elif found := find_fault(element, field.below, pool):
            return found.within(path)
    return None


def _elements(name: str, item: Any, field: Field) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What is in the field, each with its path, and as an object that holds nothing else."""
    if field.is_list and isinstance(item, list):
        for index, element in enumerate(item):
            yield f"{field.name}[{index}]", element, {name: [element]}
    elif field.is_map and isinstance(item, dict):
        for key, element in item.items():
            yield f'{field.name}["{printable(key)}"]', element, {name: {key: element}}
    else:
        yield field.name, item, {name: item}


def _is_plain(element: Any, field: Field) -> bool:
    """Whether it is right, as can be seen without a parse."""
    if type(element) is not field.plain:
        return False
    if isinstance(element, str):
        return element.isascii()
    return isinstance(element, float) and math.isfinite(element)


def _fault_of_key(
    name: str, alone: dict[str, Any], field: Field, shape: Shape, pool: DescriptorPool
) -> str | None:
    """What is wrong with the key of a map's one entry: that which another key mends."""
    [(key, element)] = alone[name].items()
    if field.expected_key == "a string" and key.isascii():
        return None
    if field.below is not None:
        element = {}
    good = _KEYS.get(field.expected_key, "1")
    if not _rejection({name: {key: element}}, shape, pool) or _rejection(
        {name: {good: element}}, shape, pool
    ):
        return None
    return "has a key that is no text" if good == "" else f"has a key that must be {field.expected_key}"


def _fault_of_value(element: Any, field: Field, error: Exception, pool: DescriptorPool) -> FieldViolation:
    if field.any and isinstance(element, dict):
        return _fault_of_any(element, pool)
    if field.expected_one == "a number" and (isinstance(error, ArithmeticError) or "value too" in str(error)):
        return FieldViolation("", "is out of range")
    if field.plain is str and isinstance(element, str):
        return FieldViolation("", "holds half a surrogate pair, which is no text")
    if isinstance(element, _FREE.get(field.expected_one, ())):
        held = "holds a number that is out of range, a string that is no text, or too many levels"
        return FieldViolation("", held)
    return FieldViolation("", f"must be {field.expected_one}")


def _fault_of_any(value: dict[str, Any], pool: DescriptorPool) -> FieldViolation:
    url = value.get("@type")
    if not isinstance(url, str):
        return FieldViolation("", "must have the URL of its type as @type")
    try:
        within: Descriptor = pool.FindMessageTypeByName(url.rpartition("/")[2])
    except REJECTIONS:
        return FieldViolation("", f"has an @type that is not known here: {printable(url)}")
    inner = {name: item for name, item in value.items() if name != "@type"}
    if not is_well_known(within) and (found := find_fault(inner, shape_of(within), pool)):
        return found
    return FieldViolation("", f"must be what its @type says, {within.name}")


def _rejection(value: dict[str, Any], shape: Shape, pool: DescriptorPool) -> Exception | None:
    try:
        json_format.ParseDict(value, shape.message_class(), descriptor_pool=pool)
    except REJECTIONS as error:
        return error
    return None
