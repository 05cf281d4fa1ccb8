"""Cuts a large request into pieces, each a valid request of its own, that are decoded one after the other.

A whole body of 4 MiB would hold the event loop for 30 ms. Protobuf says that messages one behind the other are one
message (https://protobuf.dev/programming-guides/encoding/#last-one-wins): lists go on, and of other fields the last
one counts. So a body may be cut wherever a field of the request itself begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

# A length-delimited field 1, the list of every bulk request: (1 << 3) | 2, one byte.
_LIST = 0x0A
_LENGTH_DELIMITED, _VARINT = 2, 0
_FIXED = {1: 8, 5: 4}
_VARINT_BYTES_MAX = 10


def pieces(body: bytes, size: int, elements_max: int) -> Iterator[bytes]:
    """The body in pieces of about `size` bytes, unless one field is larger. Raises OverflowError when the list
    turns out to have more than `elements_max` elements. What can't be read is left to whoever parses the piece."""
    if len(body) <= size and elements_at_most(body) <= elements_max:
        yield body
        return
    start = at = elements = 0
    while at < len(body):
        if body[at] == _LIST:
            elements += 1
            if elements > elements_max:
                raise OverflowError
        at = _behind(body, at)
        if at - start >= size:
            yield body[start:at]
            start = at
    if start < len(body):
        yield body[start:]


def elements_at_most(body: bytes) -> int:
    """More elements than these the list can't have."""
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == _LIST))


def _behind(body: bytes, at: int) -> int:
    """Where the field that begins here ends; the body's end, if that can't be told."""
    if body[at] == _LIST and at + 2 < len(body):
        low, high = body[at + 1], body[at + 2]
        if low < 0x80:
            return at + 2 + low
        if high < 0x80:
            return at + 3 + (low & 0x7F | high << 7)
    tag, at = _varint(body, at)
    kind = tag & 7
    if kind in _FIXED:
        return at + _FIXED[kind]
    if kind not in (_VARINT, _LENGTH_DELIMITED):
        return len(body)
    value, at = _varint(body, at)
    return at + value if kind == _LENGTH_DELIMITED else at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for position, byte in enumerate(body[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    return len(body), len(body)


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The pieces of one request, as `transport.columns` decodes them, as if it had been decoded whole."""
    if len(batches) == 1:
        return batches[0]
    columns = [
        _joined_column([batch.column(number) for batch in batches])
        for number in range(batches[0].num_columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def _joined_column(columns: Sequence[pa.Array]) -> pa.Array:
    if pa.types.is_list(columns[0].type):
        values = pa.concat_arrays([column.values for column in columns])
        return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values, type=columns[0].type)
    # A field that is not in a piece is null or zero there.
    said = [column for column in columns if column[0].as_py()]
    return said[-1] if said else columns[-1]
