"""Bulk JSON to Arrow columns without a message per element, for bodies that are written in the plain way.

It takes only what needs no rule of proto3 JSON to be understood: fields under their JSON names, values of the
expected JSON types, times in UTC. For everything else (other spellings, null elements, mistakes) it returns None,
and protobuf's own reader decides, so that there is one authority on what is right and on what is said of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import Descriptor, FieldDescriptor

Rows = Sequence[dict[str, Any]]
Column = Callable[[Rows], pa.Array]

_NONE = type(None)
# RFC 3339 as proto3 JSON writes it. The offsets that it also takes are left to protobuf's reader.
_UTC_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$"
_NANOS = 1_000_000_000
_INTEGERS = (FieldDescriptor.CPPTYPE_INT64,)


class _NotPlainError(Exception):
    """Left to protobuf's reader."""


class ColumnReader:
    """Reads loaded JSON of one request type, whose field 1 is its list. Raises ValueError, when it is made, for a
    type that it can't read."""

    def __init__(self, request: Descriptor) -> None:
        elements = request.fields_by_number[1]
        assert elements.message_type is not None
        self._names = (elements.name, elements.json_name)
        self._columns = {field.name: _column(field) for field in elements.message_type.fields}
        self._known = frozenset(field.json_name for field in elements.message_type.fields)
        # Further fields of the request are few and scalar; a request that has any goes the other way.
        self._name = elements.name

    def read(self, value: dict[str, Any]) -> pa.RecordBatch | None:
        """The request as a record batch of one row, as `transport.columns` decodes it from protobuf's bytes; None
        when the body is not plain."""
        if len(value) != 1 or self._names[1] not in value:
            return None
        rows = value[self._names[1]]
        if type(rows) is not list or not rows or set(map(type, rows)) != {dict}:
            return None
        if not all(map(self._known.issuperset, rows)):
            return None
        try:
            arrays = {name: column(rows) for name, column in self._columns.items()}
        except (_NotPlainError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError):
            return None
        elements = pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays))
        lists = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), elements)
        return pa.RecordBatch.from_arrays([lists], names=[self._name])


def _column(field: FieldDescriptor) -> Column:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return lambda rows: _maps([row.get(field.json_name) for row in rows])
    if message is not None and message.full_name == "google.protobuf.Timestamp":
        return lambda rows: _times([row.get(field.json_name) for row in rows])
    if message is None and field.is_repeated:
        return _lists(field)
    if message is None and field.type == FieldDescriptor.TYPE_STRING:
        return lambda rows: _texts([row.get(field.json_name, "") for row in rows])
    if message is None and field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE and field.has_presence:
        return lambda rows: _doubles([row.get(field.json_name) for row in rows])
    msg = f"{field.full_name} can't be read from JSON as a column"
    raise ValueError(msg)


def _only(values: Sequence[Any], *types: type) -> None:
    """Raises unless each value is of exactly one of these types: true is no number, and "1" needs a rule."""
    if not set(map(type, values)).issubset(types):
        raise _NotPlainError


def _texts(values: list[Any]) -> pa.Array:
    _only(values, str)
    return pa.array(values, pa.string())


def _doubles(values: list[Any]) -> pa.Array:
    _only(values, float, int, _NONE)
    column = pa.array(values, pa.float64())
    # json.loads reads NaN and Infinity, which JSON has not.
    if not pc.all(pc.is_finite(column), skip_nulls=True).as_py() and column.null_count < len(column):
        raise _NotPlainError
    return column


def _times(values: list[Any]) -> pa.Array:
    _only(values, str, _NONE)
    texts = pa.array(values, pa.string())
    if texts.null_count < len(texts):
        plain = pc.all(pc.match_substring_regex(texts, _UTC_TIME), skip_nulls=True).as_py()
        if not plain:
            raise _NotPlainError
    moments = texts.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
    nanos = moments.fill_null(0).to_numpy()
    seconds = nanos // _NANOS
    fields = [pa.array(seconds), pa.array((nanos - seconds * _NANOS).astype(np.int32))]
    return pa.StructArray.from_arrays(fields, names=["seconds", "nanos"], mask=moments.is_null())


def _maps(values: list[Any]) -> pa.Array:
    _only(values, dict, _NONE)
    maps = [value or {} for value in values]
    texts = list(chain.from_iterable(each.values() for each in maps))
    _only(texts, str)
    names = list(chain.from_iterable(maps))
    return pa.MapArray.from_arrays(_offsets(maps), pa.array(names, pa.string()), pa.array(texts, pa.string()))


def _lists(field: FieldDescriptor) -> Column:
    name = field.json_name
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        flat = _doubles_of
    elif field.cpp_type in _INTEGERS:
        flat = _integers_of
    else:
        msg = f"{field.full_name} can't be read from JSON as a column"
        raise ValueError(msg)

    def column(rows: Rows) -> pa.Array:
        lists = [row.get(name, ()) for row in rows]
        _only(lists, list, tuple)
        return pa.ListArray.from_arrays(_offsets(lists), flat(list(chain.from_iterable(lists))))

    return column


def _doubles_of(values: list[Any]) -> pa.Array:
    _only(values, float, int)
    return _doubles(values)


def _integers_of(values: list[Any]) -> pa.Array:
    _only(values, str, int)
    # proto3 JSON writes 64-bit integers as strings.
    if any(
        type(value) is str and not (value.isascii() and value.removeprefix("-").isdigit()) for value in values
    ):
        raise _NotPlainError
    return pa.array(list(map(int, values)), pa.int64())


def _offsets(parts: Sequence[Any]) -> pa.Array:
    return pa.array([0, *accumulate(map(len, parts))], pa.int32())
