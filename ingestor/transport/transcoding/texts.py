"""Values written as text, in paths and query parameters: what the text of one field says.

It reads a text as proto3 JSON reads a string of the same content, and is as strict: no white space, no `1_000`, no
`0x10`. Beyond JSON it takes enums by their number, and booleans. It refuses, by having no reader for them, fields
that no short text can hold: messages, but for those that JSON writes as one value.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Reader = Callable[[str], Any]
"""Raises ValueError, with the end of a sentence that begins with the field, for a text that is no such value."""

BYTES = re.compile(r"(?P<data>[A-Za-z0-9+/_-]*)(?P<padding>={0,2})")
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"-?[0-9]+")
DURATION = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,9})?s")
TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_MASK = re.compile(r"(?:[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*(?:,[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)*)?")
_CAPITAL = re.compile("[A-Z]")
# Digits of the longest 64-bit integer, with room for zeros before it.
_DIGITS_MAX = 32
# As strconv.ParseBool takes them, and so grpc-gateway.
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE", "t", "T", "1"), True),
    **dict.fromkeys(("false", "False", "FALSE", "f", "F", "0"), False),
}
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def reader_of(field: FieldDescriptor) -> Reader | None:
    """The reader for one value of this field (of its elements, where it is repeated); None where no text can be
    one."""
    if field.message_type is not None:
        return _message_reader(field.message_type)
    if field.enum_type is not None:
        return _enum_reader(field)
    if field.cpp_type in _BITS:
        return _integer_reader(*_BITS[field.cpp_type])
    readers: dict[int, Reader] = {
        FieldDescriptor.TYPE_BOOL: _boolean,
        FieldDescriptor.TYPE_BYTES: unbased,
        FieldDescriptor.TYPE_DOUBLE: _double,
        FieldDescriptor.TYPE_FLOAT: _float,
        FieldDescriptor.TYPE_STRING: str,
    }
    return readers.get(field.type)


def unbased(text: str) -> bytes:
    """The bytes that this base64 or base64url stands for, padded or not. Raises ValueError."""
    match = BYTES.fullmatch(text)
    if match is None or (match["padding"] and len(text) % 4):
        raise ValueError("must be base64")
    data = match["data"]
    try:
        return base64.urlsafe_b64decode(data.replace("+", "-").replace("/", "_") + "=" * (-len(data) % 4))
    except binascii.Error:
        raise ValueError("must be base64") from None


def fits_float(number: float) -> bool:
    """Whether a 32-bit float can hold it, roughly."""
    try:
        struct.pack("<f", number)  # of the native one an infinity comes out
    except OverflowError:
        return False
    return True


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise ValueError("must be true or false")
    return _BOOLEANS[text]


def _integer_reader(least: int, most: int) -> Reader:
    def read(text: str) -> int:
        if INTEGER.fullmatch(text) and len(text) <= _DIGITS_MAX and least <= int(text) <= most:
            return int(text)
        msg = f"must be an integer from {least} to {most}"
        raise ValueError(msg)

    return read


def _double(text: str) -> float:
    if text in NOT_FINITE:
        return NOT_FINITE[text]
    if NUMBER.fullmatch(text) is None:
        raise ValueError("must be a number")
    number = float(text)
    if math.isinf(number):
        raise ValueError("is out of range")
    return number


def _float(text: str) -> float:
    number = _double(text)
    if not fits_float(number):
        raise ValueError("is out of range")
    return number


def _enum_reader(field: FieldDescriptor) -> Reader:
    assert field.enum_type is not None
    name = field.enum_type.name
    values = {value.name: value.number for value in field.enum_type.values}
    values.update({str(number): number for number in values.values()})

    def read(text: str) -> int:
        if text not in values:
            msg = f"must be a value of {name}, by name or number"
            raise ValueError(msg)
        return values[text]

    return read


def _message_reader(descriptor: Descriptor) -> Reader | None:
    special = {
        "google.protobuf.Duration": _duration,
        "google.protobuf.FieldMask": _mask,
        "google.protobuf.Timestamp": _timestamp,
    }
    message_class = GetMessageClass(descriptor)
    if (fill := special.get(descriptor.full_name)) is not None:

        def read(text: str) -> Message:
            message = message_class()
            fill(message, text)
            return message

        return read
    if descriptor.file.name != "google/protobuf/wrappers.proto":
        return None
    inner = reader_of(descriptor.fields_by_name["value"])
    assert inner is not None
    return lambda text: message_class(value=inner(text))


def _duration(message: Any, text: str) -> None:
    problem = "must be seconds, such as 1.5s"
    if DURATION.fullmatch(text) is None:
        raise ValueError(problem)
    try:
        message.FromJsonString(text)
    except ValueError:
        raise ValueError(problem) from None


def _timestamp(message: Any, text: str) -> None:
    problem = "must be a time in RFC 3339, such as 2026-01-31T12:00:00Z"
    if TIMESTAMP.fullmatch(text) is None:
        raise ValueError(problem)
    try:
        message.FromJsonString(text)
    except ValueError:
        raise ValueError(problem) from None


def _mask(message: Any, text: str) -> None:
    """Paths in proto names, or in JSON names as JSON has them."""
    if _MASK.fullmatch(text) is None:
        raise ValueError("must be field paths with commas between them")
    for path in text.split(",") if text else ():
        message.paths.append(_CAPITAL.sub(lambda capital: "_" + capital[0].lower(), path))
    try:
        message.ToJsonString()
    except ValueError:
        # An answer that holds it could not be given.
        raise ValueError("must be field paths in which a small letter follows each _") from None
