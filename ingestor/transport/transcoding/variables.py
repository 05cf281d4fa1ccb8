"""Variables of path templates into the fields of a message.

What can't be one is refused when the routes are made: a path that leads to no field, and a field that holds more
than one value, which client libraries can't expand into a path either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ingestor.errors import FieldViolation, Invalid
from ingestor.transport.transcoding.shapes import is_well_known
from ingestor.transport.transcoding.texts import reader_of


def put(holder: Any, field: FieldDescriptor, value: Any) -> None:
    """Sets a singular field."""
    if field.message_type is None:
        setattr(holder, field.name, value)
    else:
        getattr(holder, field.name).CopyFrom(value)


def resolved(descriptor: Descriptor, path: str) -> Callable[[Message, str], None]:
    """What writes a variable of this field path, in proto names, into messages of that type; it raises Invalid.
    Raises ValueError for a path that no variable can have."""
    *parents, last = path.split(".")
    for name in parents:
        field = descriptor.fields_by_name.get(name)
        below = None if field is None or field.is_repeated else field.message_type
        if below is None or is_well_known(below):
            msg = f"{path}: {name} is no field of {descriptor.name} that has fields below it"
            raise ValueError(msg)
        descriptor = below
    found = descriptor.fields_by_name.get(last)
    if found is None:
        msg = f"{path} is no field: {descriptor.name} has no {last}"
        raise ValueError(msg)
    read = None if found.is_repeated else reader_of(found)
    if read is None:
        msg = f"{path} can't be a variable of a path: it holds more than one value"
        raise ValueError(msg)
    leaf, convert = found, read

    def write(message: Message, text: str) -> None:
        try:
            value = convert(text)
        except ValueError as error:
            raise Invalid.fields([FieldViolation(path, str(error))]) from None
        holder: Any = message
        for name in parents:
            holder = getattr(holder, name)
        put(holder, leaf, value)

    return write
