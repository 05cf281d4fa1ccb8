"""Bulk requests as Arrow columns: one decoder port, a native implementation and a plain one beside it."""

from ingestor.transport.columns.decoders import (
    ColumnDecoder,
    NativeDecoder,
    ReferenceDecoder,
    native_available,
)
from ingestor.transport.columns.splitting import joined, pieces

__all__ = ["ColumnDecoder", "NativeDecoder", "ReferenceDecoder", "joined", "native_available", "pieces"]
