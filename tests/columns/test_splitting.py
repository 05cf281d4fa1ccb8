"""Large requests in pieces: what they say, and whether they are valid, is the same as whole."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.transport.columns import NativeDecoder, ReferenceDecoder, joined, native_available, pieces
from tests.columns.metrics import descriptor, request, requests, series_request, series_requests

DECODER = NativeDecoder if native_available() else ReferenceDecoder
KINDS = {name: GetMessageClass(descriptor(name)) for name in ("LogMetricsRequest", "WriteSeriesRequest")}
MANY = 1_000_000
# ack = 2 (a varint) and request_id = 3 of a request, and fields that nobody knows, of each wire type.
OTHERS = [
    b"\x10\x01",
    b"\x1a\x02id",
    b"\xa0\x06\x96\x01",
    b"\xa5\x06abcd",
    b"\xa1\x06abcdefgh",
    b"\xa2\x06\x01x",
]


def whole_and_cut(kind: str, body: bytes, size: int) -> None:
    """The same columns whichever way, and every piece but the last no smaller than asked for."""
    cut = list(pieces(body, size, MANY))
    assert b"".join(cut) == body
    assert all(len(piece) >= size for piece in cut[:-1])
    decoder = DECODER(descriptor(kind))
    whole, parts = decoder.decode(body), joined([decoder.decode(piece) for piece in cut])
    assert whole.schema == parts.schema
    assert repr(whole.to_pylist()) == repr(parts.to_pylist())


@settings(deadline=None)
@given(st.lists(st.one_of(requests, st.sampled_from(OTHERS)), max_size=5), st.integers(1, 300))
def test_pieces_say_what_the_whole_says(parts: list[bytes], size: int) -> None:
    """Wherever other fields stand: of those the last one counts."""
    whole_and_cut("LogMetricsRequest", b"".join(parts), size)


@settings(deadline=None)
@given(st.lists(st.one_of(series_requests, st.sampled_from(OTHERS)), max_size=5), st.integers(1, 300))
def test_pieces_of_series_do_too(parts: list[bytes], size: int) -> None:
    """Their own lists are never cut."""
    whole_and_cut("WriteSeriesRequest", b"".join(parts), size)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_valid_when_the_whole_is(kind: str) -> None:
    """However the bytes are damaged: cutting neither hides an error nor makes one."""
    chance = random.Random(5)
    metric = {"service_name": "s" * 40, "metric_name": "m", "value": 1.0, "labels": {"a": "b" * 150}}
    series = {"service_name": "s", "metric_name": "m" * 200, "time_unix_nano": [1, 2], "value": [1.0, 2.0]}
    good = (request(*[metric] * 5) if kind.startswith("Log") else series_request(*[series] * 5)) + b"".join(
        OTHERS
    )
    refused = 0
    for _ in range(3_000):
        body = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        damaged = bytes(body[: chance.randrange(len(body))] if chance.random() < 0.2 else body)
        whole = valid(kind, damaged)
        refused += not whole
        assert all(valid(kind, piece) for piece in pieces(damaged, chance.randrange(1, 200), MANY)) is whole
    assert 300 < refused < 2_900


def valid(kind: str, body: bytes) -> bool:
    try:
        KINDS[kind].FromString(body)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 5000])
@pytest.mark.parametrize("metric", [{}, {"service_name": "\n\n\n\n"}, {"metric_name": "x" * 300}])
@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_elements_are_counted_near_the_bound(count: int, metric: dict[str, object], size: int) -> None:
    """Too many exactly when there are more elements than the bound, whatever bytes they hold."""
    body = request(*[metric] * count)
    if count > 10:
        with pytest.raises(OverflowError):
            list(pieces(body, size, 10))
    else:
        assert b"".join(pieces(body, size, 10)) == body
    assert b"".join(pieces(body, size, MANY)) == body


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a",
        b"\x0a\xff",
        b"\x0a" * 9,
        b"\x0a" + b"\xff" * 10 + b"\x01",
        b"\x0b",
        b"\xff" * 12,
        b"\x0a\xff\xff",
    ],
)
def test_bytes_that_are_no_message_are_passed_on(body: bytes) -> None:
    """To whoever refuses them; here they only must not hang or raise."""
    assert b"".join(pieces(body, 1, 10)) == body


def test_of_other_fields_the_last_piece_that_has_them_counts() -> None:
    """As protobuf says of a field that comes twice, and of one that is not there."""
    lists = pa.list_(pa.int32())
    parts = [([1], 2, ""), ([2, 3], 0, "first"), ([], 3, "last"), ([4], 0, "")]
    schema = pa.schema([("items", lists), ("level", pa.int32()), ("id", pa.string())])
    batches = [
        pa.RecordBatch.from_pylist([dict(zip(schema.names, part, strict=True))], schema=schema)
        for part in parts
    ]
    assert joined(batches).to_pylist() == [{"items": [1, 2, 3, 4], "level": 3, "id": "last"}]
