"""Encodes a batch as PostgreSQL's binary COPY stream (https://www.postgresql.org/docs/current/sql-copy.html): one
port, a native implementation and a plain one beside it, held to the same bytes by tests.

They encode slice by slice, so that no single call holds the event loop for long.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import Protocol

import pyarrow as pa

# pgpq takes 0.04 us a row and holds the GIL meanwhile: under a millisecond a slice.
_SLICE_ROWS = 20_000
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
# PostgreSQL counts microseconds from 2000-01-01.
_POSTGRES_EPOCH_US = 946_684_800_000_000
_FIELDS = 5


class Encoder(Protocol):
    """Encodes record batches in `ingestor.model.batch.SCHEMA`."""

    def encode(self, columns: pa.RecordBatch) -> Iterator[bytes]:
        """Header, rows and trailer, in pieces of at most `_SLICE_ROWS` rows."""
        ...


def native_available() -> bool:
    """Whether pgpq can be imported here (it has no wheel for every platform)."""
    return find_spec("pgpq") is not None


class NativeEncoder:
    """pgpq: 0.04 us a row."""

    def encode(self, columns: pa.RecordBatch) -> Iterator[bytes]:
        from pgpq import ArrowToPostgresBinaryEncoder  # noqa: PLC0415 - where it can't be imported, the reference serves

        encoder = ArrowToPostgresBinaryEncoder(columns.schema)
        yield encoder.write_header()
        for start in range(0, columns.num_rows, _SLICE_ROWS):
            # May be empty: pgpq keeps small batches back until finish().
            if piece := encoder.write_batch(columns.slice(start, _SLICE_ROWS)):
                yield piece
        yield encoder.finish()


class ReferenceEncoder:
    """struct: some 1 us a row, and nothing that could surprise."""

    _START = struct.Struct(">hiq")
    _LENGTH = struct.Struct(">i")
    _END = struct.Struct(">idiq")

    def encode(self, columns: pa.RecordBatch) -> Iterator[bytes]:
        yield _HEADER
        for start in range(0, columns.num_rows, _SLICE_ROWS):
            yield self._rows(columns.slice(start, _SLICE_ROWS))
        yield _TRAILER

    def _rows(self, columns: pa.RecordBatch) -> bytes:
        times = columns.column("time").cast(pa.int64()).to_pylist()
        others = [column.to_pylist() for column in columns.columns[1:]]
        pieces = []
        for time_us, service, metric, value, label_set_id in zip(times, *others, strict=True):
            pieces.append(self._START.pack(_FIELDS, 8, time_us - _POSTGRES_EPOCH_US))
            for text in (service.encode(), metric.encode()):
                pieces += (self._LENGTH.pack(len(text)), text)
            pieces.append(self._END.pack(8, value, 8, label_set_id))
        return b"".join(pieces)


async def stream(encoder: Encoder, columns: pa.RecordBatch) -> AsyncIterator[bytes]:
    """The same pieces as asyncpg wants them; each is made when the last one is sent."""
    for piece in encoder.encode(columns):
        yield piece
