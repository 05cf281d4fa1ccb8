"""Bulk requests as Arrow columns: one decoder port, a native implementation and a plain one beside it."""

from ingestor.transport.columns.counting import has_more_elements
from ingestor.transport.columns.decoders import (
    ColumnDecoder,
    NativeDecoder,
    ReferenceDecoder,
    native_available,
)

__all__ = ["ColumnDecoder", "NativeDecoder", "ReferenceDecoder", "has_more_elements", "native_available"]
