"""The column decoders: one contract, two implementations, the same columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings

from ingestor.transport.columns import (
    ColumnDecoder,
    NativeDecoder,
    ReferenceDecoder,
    native_available,
)
from tests.columns.metrics import descriptor, request, requests, series_requests

NATIVE = pytest.param(
    NativeDecoder, marks=pytest.mark.skipif(not native_available(), reason="ptars has no wheel here")
)


def plain(batch: pa.RecordBatch, name: str = "metrics") -> list[dict[str, Any]]:
    """As Python values; a map's order means nothing, and of a key that comes twice the last counts."""
    rows: list[dict[str, Any]] = batch.column(name).flatten().to_pylist()
    return [{**row, "labels": dict(sorted(dict(row["labels"]).items()))} for row in rows]


@pytest.mark.parametrize("decoder", [NATIVE, ReferenceDecoder])
class TestDecoder:
    """What a decoder promises."""

    def test_fields_come_as_columns(self, decoder: type[Any]) -> None:
        """One row, its list a list of structs; time as two integers, exactly as they came."""
        made: ColumnDecoder = decoder(descriptor())
        body = request(
            {
                "service_name": "s",
                "metric_name": "m",
                "value": 0.0,
                "time": (-5, 2_000_000_000),
                "labels": {"a": "b"},
            },
            {"metric_name": "n"},
        )
        assert plain(made.decode(body)) == [
            {
                "service_name": "s",
                "metric_name": "m",
                "value": 0.0,
                "time": {"seconds": -5, "nanos": 2_000_000_000},
                "labels": {"a": "b"},
            },
            {"service_name": "", "metric_name": "n", "value": None, "time": None, "labels": {}},
        ]

    def test_nothing_is_no_rows(self, decoder: type[Any]) -> None:
        """An empty request has an empty list."""
        assert plain(decoder(descriptor()).decode(b"")) == []

    def test_unknown_fields_are_skipped(self, decoder: type[Any]) -> None:
        """Newer clients may send more than we know."""
        body = request({"service_name": "s"})
        unknown = b"\xfa\x01\x03abc"
        inner = bytes([0x0A, len(body) - 2 + len(unknown)]) + body[2:] + unknown
        rows = plain(decoder(descriptor()).decode(inner + unknown))
        assert [row["service_name"] for row in rows] == ["s"]

    def test_a_label_that_comes_twice_counts_as_the_last(self, decoder: type[Any]) -> None:
        """As protobuf has it for maps."""
        entry = b"\x2a\x06\x0a\x01a\x12\x01"
        metric = entry + b"1" + entry + b"2"
        [row] = plain(decoder(descriptor()).decode(b"\x0a" + bytes([len(metric)]) + metric))
        assert row["labels"] == {"a": "2"}


@pytest.mark.skipif(not native_available(), reason="ptars has no wheel here")
@settings(deadline=None)
@given(requests)
def test_both_decoders_agree(body: bytes) -> None:
    """Schema and values, for whatever a request can hold."""
    native, reference = NativeDecoder(descriptor()).decode(body), ReferenceDecoder(descriptor()).decode(body)
    assert native.schema == reference.schema
    assert repr(plain(native)) == repr(plain(reference))  # repr, because NaN differs from itself


@pytest.mark.skipif(not native_available(), reason="ptars has no wheel here")
@settings(deadline=None)
@given(series_requests)
def test_both_decoders_agree_on_series(body: bytes) -> None:
    """Packed lists, too."""
    kind = descriptor("WriteSeriesRequest")
    native, reference = NativeDecoder(kind).decode(body), ReferenceDecoder(kind).decode(body)
    assert native.schema == reference.schema
    assert repr(plain(native, "series")) == repr(plain(reference, "series"))
