"""Bulk JSON to Arrow columns without a message per element, for bodies that are written in the plain way.

It takes only what needs no rule of proto3 JSON to be understood: fields under their JSON names, values of the
expected JSON types, times in UTC. For everything else (other spellings, null elements, mistakes) it returns None,
and protobuf's own reader decides, so that there is one authority on what is right and on what is said of the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingestor.transport.transcoding.plain import NotPlainError, is_map

Rows = Sequence[dict[str, Any]]
Column = Callable[[Rows], pa.Array]

_NONE = type(None)
_QUOTE, _COLON, _SPACE = ord('"'), ord(":"), ord(" ")
# A short text is searched: that takes 4 us for 1,000 bytes and 17 for 4,000, arrays 4 to 5 us for either. Amid all
# else that is read, from where arrays begin cold, they are as fast at 1,350 bytes, and save 10 us of 150 at 4,000.
_SHORT_BYTES_MAX = 1_400
# RFC 3339 as proto3 JSON writes it: what stands at which place, and the length without a fraction. The offsets that
# it also takes are left to protobuf's reader.
_TIME_MARKS = [(4, ord("-")), (7, ord("-")), (10, ord("T")), (13, ord(":")), (16, ord(":"))]
_TIME_LENGTH = len("2026-01-02T03:04:05Z")
_UTC_MARK, _POINT = ord("Z"), ord(".")
_INTEGER = re.compile("-?[0-9]{1,19}")
_NANOS = 1_000_000_000
_UNSAID = object()
_INTEGERS = (FieldDescriptor.CPPTYPE_INT64,)


class ColumnReader:
    """Reads JSON of one request type, whose field 1 is its list, of `elements_max` elements at the most. Raises
    ValueError, when it is made, for a type that it can't read."""

    def __init__(self, request: Descriptor, elements_max: int) -> None:
        elements = request.fields_by_number[1]
        assert elements.message_type is not None
        self._name, self._json_name = elements.name, elements.json_name
        self._elements_max = elements_max
        fields = elements.message_type.fields
        self._columns = {field.name: _column(field) for field in fields}
        self._known = frozenset(field.json_name for field in fields)
        self._maps = [field.json_name for field in fields if is_map(field)]
        self._scalars = [_Scalar(field) for field in request.fields if field.number != elements.number]
        self._names = {elements.json_name, *(scalar.json_name for scalar in self._scalars)}

    def read(self, body: bytes) -> pa.RecordBatch | None:
        """The request as a record batch of one row, as `transport.columns` decodes it from protobuf's bytes; None
        when the body is not plain."""
        try:
            value = _load(body)
            rows = self._rows(value)
            arrays = {name: column(rows) for name, column in self._columns.items()}
            scalars = {scalar.name: scalar.column(value) for scalar in self._scalars}
        except (NotPlainError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError):
            return None
        if len(value) + self._keys(rows) != _keys_in(body):
            return None
        elements = pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays))
        lists = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), elements)
        return pa.RecordBatch.from_arrays([lists, *scalars.values()], names=[self._name, *scalars])

    def _rows(self, value: Any) -> Rows:
        if type(value) is not dict or not self._names.issuperset(value):
            raise NotPlainError
        rows = value.get(self._json_name)
        if type(rows) is not list or not 0 < len(rows) <= self._elements_max:
            raise NotPlainError
        _only(rows, dict)
        if not all(map(self._known.issuperset, rows)):
            raise NotPlainError
        return rows

    def _keys(self, rows: Rows) -> int:
        """How many keys the elements have in all their objects."""
        in_maps = sum(len(row[name]) for name in self._maps for row in rows if row.get(name))
        return sum(map(len, rows)) + in_maps


class _Scalar:
    """A further field of the request: a string, or an enum under its value's name."""

    def __init__(self, field: FieldDescriptor) -> None:
        self.name, self.json_name = field.name, field.json_name
        self._type: pa.DataType = pa.string()
        self._values: dict[str, int] | None = None
        if field.enum_type is not None and not field.is_repeated:
            self._type = pa.int32()
            self._values = {value.name: value.number for value in field.enum_type.values}
        elif field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
            msg = f"{field.full_name} can't be read from JSON as a column"
            raise ValueError(msg)

    def column(self, request: dict[str, Any]) -> pa.Array:
        """One value: the field's in this request, or its default."""
        value: Any = request.get(self.json_name, _UNSAID)
        if value is _UNSAID:
            value = 0 if self._values is not None else ""
        elif type(value) is not str:
            raise NotPlainError
        elif self._values is not None:
            if value not in self._values:
                raise NotPlainError
            value = self._values[value]
        return pa.array([value], self._type)


def _load(body: bytes) -> Any:
    """The JSON value of this text, of two keys alike in an object the last one. Raises NotPlainError."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NotPlainError from None


def _keys_in(body: bytes) -> int:
    """How many keys a text has, as far as it has no white space before colons, and no quotes within strings; a
    number that can't be right where it has."""
    if len(body) <= _SHORT_BYTES_MAX:
        spaced = b" :" in body or b"\n:" in body or b"\t:" in body or b"\r:" in body
        return -1 if spaced else body.count(b'":')
    text = np.frombuffer(body, np.uint8)
    before, colons = text[:-1], text[1:] == _COLON
    if ((before <= _SPACE) & colons).any():
        return -1
    return int(np.count_nonzero((before == _QUOTE) & colons))


def _column(field: FieldDescriptor) -> Column:
    name, message = field.json_name, field.message_type
    if is_map(field):
        return lambda rows: _maps([row.get(name) for row in rows])
    if message is not None and message.full_name == "google.protobuf.Timestamp":
        return lambda rows: _times([row.get(name) for row in rows])
    if message is None and field.is_repeated:
        return _lists(field)
    if message is None and field.type == FieldDescriptor.TYPE_STRING:
        return lambda rows: _texts([row.get(name, "") for row in rows])
    if message is None and field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE and field.has_presence:
        return lambda rows: _doubles([row.get(name) for row in rows])
    msg = f"{field.full_name} can't be read from JSON as a column"
    raise ValueError(msg)


def _only(values: Sequence[Any], *types: type) -> None:
    """Raises unless each value is of exactly one of these types: true is no number, and "1" needs a rule."""
    if not set(map(type, values)).issubset(types):
        raise NotPlainError


def _texts(values: list[Any]) -> pa.Array:
    _only(values, str)
    return pa.array(values, pa.string())


def _doubles(values: list[Any]) -> pa.Array:
    _only(values, float, int, _NONE)
    column = pa.array(values, pa.float64())
    # json.loads reads NaN and Infinity, which JSON has not.
    if not pc.all(pc.is_finite(column), skip_nulls=True).as_py() and column.null_count < len(column):
        raise NotPlainError
    return column


def _times(values: list[Any]) -> pa.Array:
    _only(values, str, _NONE)
    texts = pa.array(values, pa.string())
    if not _plain_times(texts.drop_null()):
        raise NotPlainError
    moments = texts.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
    nanos = moments.fill_null(0).to_numpy()
    seconds = nanos // _NANOS
    fields = [pa.array(seconds), pa.array((nanos - seconds * _NANOS).astype(np.int32))]
    return pa.StructArray.from_arrays(fields, names=["seconds", "nanos"], mask=moments.is_null())


def _plain_times(texts: pa.StringArray) -> bool:
    """Whether all are written as 2026-01-02T03:04:05Z, or with a fraction: as proto3 JSON writes them, where Arrow
    takes much else. That digits are digits, it sees for itself."""
    if not len(texts):
        return True
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = starts[1:] - starts[:-1]
    starts = starts[:-1]
    if lengths.min() < _TIME_LENGTH:
        return False
    characters = np.frombuffer(data, np.uint8)
    fraction = characters[starts[lengths > _TIME_LENGTH] + _TIME_LENGTH - 1]
    return bool(
        all((characters[starts + at] == expected).all() for at, expected in _TIME_MARKS)
        and (characters[starts + lengths - 1] == _UTC_MARK).all()
        and (fraction == _POINT).all()
    )


def _maps(values: list[Any]) -> pa.Array:
    _only(values, dict, _NONE)
    maps: list[dict[str, Any]] = [value for value in values if value]
    texts = list(chain.from_iterable(each.values() for each in maps))
    _only(texts, str)
    names = list(chain.from_iterable(maps))
    offsets = _offsets([value or () for value in values]) if maps else _no_offsets(len(values))
    return pa.MapArray.from_arrays(offsets, pa.array(names, pa.string()), pa.array(texts, pa.string()))


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
    if not all(type(value) is int or _INTEGER.fullmatch(value) for value in values):
        raise NotPlainError
    return pa.array(list(map(int, values)), pa.int64())


def _no_offsets(count: int) -> pa.Array:
    return pa.array(np.zeros(count + 1, np.int32))


def _offsets(parts: Sequence[Any]) -> pa.Array:
    return pa.array([0, *accumulate(map(len, parts))], pa.int32())
