"""Bytes of a bulk request to an Arrow record batch of one row: a column a field, lists of structs inside.

The native decoder is ptars, which must never see bytes that upb has not parsed: nested unknown groups overflow
its stack, an absurd length panics, and it takes cut messages. The reference decoder builds the same from upb's
message, value by value; the same tests run over both.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

import pyarrow as pa
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ingestor.errors import Invalid
from ingestor.transport.columns.wire_types import wire_descriptor

_ARROW: dict[int, pa.DataType] = {
    FieldDescriptor.CPPTYPE_INT32: pa.int32(),
    FieldDescriptor.CPPTYPE_INT64: pa.int64(),
    FieldDescriptor.CPPTYPE_UINT32: pa.uint32(),
    FieldDescriptor.CPPTYPE_UINT64: pa.uint64(),
    FieldDescriptor.CPPTYPE_DOUBLE: pa.float64(),
    FieldDescriptor.CPPTYPE_FLOAT: pa.float32(),
    FieldDescriptor.CPPTYPE_BOOL: pa.bool_(),
    FieldDescriptor.CPPTYPE_ENUM: pa.int32(),
}


class ColumnDecoder(Protocol):
    """Decodes requests of one type. `body` must be valid: parsed by upb before."""

    def decode(self, body: bytes) -> pa.RecordBatch:
        """One row, a column for each field in the order of the proto. Raises Invalid."""
        ...


def native_available() -> bool:
    """Whether ptars can be imported here (it has no wheel for every platform)."""
    return find_spec("ptars") is not None


class NativeDecoder:
    """ptars: 0.1 to 0.2 us a row."""

    def __init__(self, descriptor: Descriptor) -> None:
        from ptars import HandlerPool  # noqa: PLC0415 - where it can't be imported, the reference serves

        wire = wire_descriptor(descriptor)
        self._handler = HandlerPool([wire.file]).get_for_message(wire)

    def decode(self, body: bytes) -> pa.RecordBatch:
        try:
            return self._handler.list_to_record_batch([body])
        except BaseException as error:  # what pyo3 makes of a panic is no Exception
            # A Rust panic is a BaseException of its own. upb has taken these bytes, so it should not happen;
            # if it does, the caller's request fails and the server goes on.
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            msg = "the message can't be decoded"
            raise Invalid(msg) from error


class ReferenceDecoder:
    """upb and pyarrow: some 5 us a row, and nothing that could surprise."""

    def __init__(self, descriptor: Descriptor) -> None:
        wire = wire_descriptor(descriptor)
        self._message_class: type[Message] = GetMessageClass(wire)
        self._schema = pa.schema([_field(field) for field in wire.fields])
        self._value = _struct_value(wire)

    def decode(self, body: bytes) -> pa.RecordBatch:
        values = self._value(self._message_class.FromString(body))
        return pa.RecordBatch.from_pylist([values], schema=self._schema)


def _field(field: FieldDescriptor) -> pa.Field:
    return pa.field(field.name, _type(field), nullable=field.has_presence)


def _type(field: FieldDescriptor) -> pa.DataType:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return pa.map_(_single_type(key), pa.field("value", _single_type(value), nullable=False))
    single = _single_type(field)
    return pa.list_(pa.field("item", single, nullable=False)) if field.is_repeated else single


def _single_type(field: FieldDescriptor) -> pa.DataType:
    if field.message_type is not None:
        return pa.struct([_field(each) for each in field.message_type.fields])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return pa.binary() if field.type == FieldDescriptor.TYPE_BYTES else pa.string()
    return _ARROW[field.cpp_type]


def _struct_value(descriptor: Descriptor) -> Callable[[Message], dict[str, Any]]:
    readers = [(field.name, field.has_presence, _reader(field)) for field in descriptor.fields]

    def value(message: Message) -> dict[str, Any]:
        return {
            name: None if presence and not message.HasField(name) else read(getattr(message, name))
            for name, presence, read in readers
        }

    return value


def _reader(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return lambda items: list(items.items())
    single = _identity if field.message_type is None else _struct_value(field.message_type)
    return (lambda items: [single(item) for item in items]) if field.is_repeated else single


def _identity(value: Any) -> Any:
    return value
