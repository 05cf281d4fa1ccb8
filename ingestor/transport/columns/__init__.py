"""Bulk requests as Arrow columns: one decoder port, a native implementation and a plain one beside it."""

from ingestor.transport.columns.decoders import (
    ColumnDecoder,
    NativeDecoder,
    ReferenceDecoder,
    native_available,
)
from ingestor.transport.columns.splitting import elements_at_most, joined, pieces

__all__ = [
    "ColumnDecoder",
    "NativeDecoder",
    "ReferenceDecoder",
    "elements_at_most",
    "joined",
    "native_available",
    "pieces",
]
