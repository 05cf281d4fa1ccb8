"""The typed method and its columnar entry: the same bytes both ways, the same rows and the same answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from ingestor_api.analytics.v1 import AckLevel, LogMetricsRequest, LogMetricsResponse, Metric

from ingestor.errors import Invalid
from ingestor.model import LabelSet, Limits, Rules, label_set
from ingestor.model.columns import ColumnRules
from ingestor.transport.columns import NativeDecoder, ReferenceDecoder, native_available
from ingestor.transport.rpc import ColumnOptions, Descriptors, Rpc
from tests.columns.metrics import descriptor, request, requests, series_request, series_requests
from tests.recorder import Recorder, service_on

NOW = datetime.now(UTC)
DECODERS = [NativeDecoder, ReferenceDecoder] if native_available() else [ReferenceDecoder]


PLAIN = bytes(Metric("s", "m", 1.0))


# Fields 2 and 3 of every bulk request; protobuf messages one behind the other are one message.
NAMED = bytes(LogMetricsRequest(ack=AckLevel.QUEUED, request_id="r"))

Outcome = tuple[object, list[dict[str, Any]], dict[int, str], list[object]]


async def outcome(body: bytes, decoder: type[Any], *, columnar: bool, method: str = "LogMetrics") -> Outcome:
    """What the caller hears, and what the queue got."""
    queue = Recorder()
    service = service_on(queue, Limits(rows_max=10), lambda: NOW)
    rpcs = Descriptors.of_package("ingestor_api").bind(service, ColumnOptions(decoder, 10))
    [rpc] = [rpc for rpc in rpcs if rpc.path.endswith(f"/{method}")]
    answer = await _answer(rpc, body, columnar=columnar)
    rows = [row for batch in queue.batches for row in batch.columns.to_pylist()]
    sets = {id_: text for batch in queue.batches for id_, text in batch.label_sets.items()}
    return answer, rows, dict(sorted(sets.items())), list(queue.terms)


async def _answer(rpc: Rpc, body: bytes, *, columnar: bool) -> object:
    try:
        answer = (
            await rpc.serve(body) if columnar else await rpc.encoded(await rpc.answer_typed(rpc.parse(body)))
        )
        # Both responses have the same fields under the same numbers.
        return LogMetricsResponse.parse(answer)
    except Invalid as refusal:
        # The size is checked earlier on the columnar way, and told without the number.
        return "too many" if "at most" in refusal.message else (refusal.message, refusal.violations)


@pytest.mark.parametrize("decoder", DECODERS)
def test_both_ways_are_one(decoder: type[Any]) -> None:
    """Accepted rows, their order, label sets, rejections with index and reason, refusals with their fields, and
    what the request is known by."""

    @settings(deadline=None, max_examples=200)
    @given(requests)
    def check(body: bytes) -> None:
        typed = asyncio.run(outcome(body + NAMED, decoder, columnar=False))
        columns = asyncio.run(outcome(body + NAMED, decoder, columnar=True))
        assert repr(typed) == repr(columns)

    check()


@pytest.mark.parametrize("decoder", DECODERS)
def test_both_ways_of_series_are_one(decoder: type[Any]) -> None:
    """The same for WriteSeries."""

    @settings(deadline=None, max_examples=200)
    @given(series_requests)
    def check(body: bytes) -> None:
        typed = asyncio.run(outcome(body + NAMED, decoder, columnar=False, method="WriteSeries"))
        columns = asyncio.run(outcome(body + NAMED, decoder, columnar=True, method="WriteSeries"))
        assert repr(typed) == repr(columns)

    check()


@pytest.mark.parametrize("decoder", DECODERS)
async def test_points_of_series_become_rows(decoder: type[Any]) -> None:
    """Names and labels of a series go with each of its points; indices count points across series."""
    nanos = int(NOW.timestamp()) * 10**9
    body = series_request(
        {
            "service_name": "a",
            "metric_name": "m",
            "labels": {"x": "y"},
            "time_unix_nano": [nanos, 1],
            "value": [1, 2],
        },
        {"service_name": "", "metric_name": "m", "time_unix_nano": [nanos], "value": [3]},
        {"service_name": "b", "metric_name": "n", "time_unix_nano": [nanos + 1_999], "value": [4]},
    )
    answer, stored, sets, _ = await outcome(body, decoder, columnar=True, method="WriteSeries")
    assert isinstance(answer, LogMetricsResponse)
    assert answer.accepted == 2
    assert [each.index for each in answer.rejected] == [1, 2]
    assert answer.rejected[0].reason.startswith("time: is more than 365 d ago")
    assert [(row["service_name"], row["metric_name"], row["value"]) for row in stored] == [
        ("a", "m", 1),
        ("b", "n", 4),
    ]
    assert sets == {stored[0]["label_set_id"]: '{"x":"y"}'}
    assert stored[1]["label_set_id"] == 0
    assert (stored[1]["time"] - stored[0]["time"]) == timedelta(microseconds=1)


@pytest.mark.parametrize("columnar", [False, True])
async def test_lists_of_different_lengths_are_refused(*, columnar: bool) -> None:
    """There is no telling which value is which time's: the field is named, nothing is taken."""
    body = series_request(
        {"service_name": "a", "metric_name": "m", "time_unix_nano": [1], "value": [1]},
        {"service_name": "a", "metric_name": "m", "time_unix_nano": [1, 2], "value": [1]},
    )
    answer, stored, _, _ = await outcome(body, ReferenceDecoder, columnar=columnar, method="WriteSeries")
    assert "series[1].value: has 1 values for 2 times" in str(answer)
    assert stored == []


GOOD: dict[str, Any] = {"service_name": "s", "metric_name": "m", "value": 1.0}


@pytest.mark.parametrize("decoder", DECODERS)
async def test_good_rows_go_in_beside_bad_ones(decoder: type[Any]) -> None:
    """Each bad one is named by its index; labels stay with their rows."""
    rows: list[dict[str, Any]] = [
        {**GOOD, "labels": {"a": "1"}},
        {**GOOD, "service_name": ""},
        {**GOOD, "value": 2.0, "labels": {"b": "2", "a": "1"}},
        {"service_name": "s", "metric_name": "m"},
        {**GOOD, "value": 3.0},
    ]
    answer, stored, sets, _ = await outcome(request(*rows), decoder, columnar=True)
    assert isinstance(answer, LogMetricsResponse)
    assert answer.accepted == 3
    assert [(each.index, each.reason) for each in answer.rejected] == [
        (1, "service_name: must not be empty"),
        (3, "value: is required"),
    ]
    assert [row["value"] for row in stored] == [1.0, 2.0, 3.0]
    assert [sets.get(row["label_set_id"]) for row in stored] == ['{"a":"1"}', '{"a":"1","b":"2"}', None]
    assert {row["time"] for row in stored} == {NOW}


async def test_malformed_bytes_never_reach_the_column_decoder() -> None:
    """upb refuses them first: nested groups without end, absurd lengths, cut messages."""

    class Unreachable:
        def __init__(self, _: object) -> None:
            pass

        def decode(self, body: bytes) -> pa.RecordBatch:
            raise AssertionError(body)

    hostile = [
        b"\x0b" * 100_000,  # nested unknown groups: overflow the native decoder's stack
        b"\x0a\x02" + b"\x5b" * 2,
        b"\x0a" + b"\xff" * 9 + b"\x01",  # a length near 2^64: panics in it
        request(GOOD)[:-1],
        b"\x0a\x03\x0a\x01\xff",  # not UTF-8
    ]
    for body in hostile:
        answer, stored, _, _ = await outcome(body, Unreachable, columnar=True)
        assert "not a valid analytics.v1.LogMetricsRequest" in str(answer)
        assert stored == []


async def test_a_panic_of_the_decoder_is_the_requests_failure() -> None:
    """Rust's panics are BaseExceptions that `except Exception` misses; they must not end the server."""
    if not native_available():
        pytest.skip("ptars has no wheel here")

    class Panic(BaseException):
        pass

    class Handler:
        def list_to_record_batch(self, _: object) -> pa.RecordBatch:
            raise Panic

    def panicking(descriptor: Any) -> NativeDecoder:
        decoder = NativeDecoder(descriptor)
        decoder._handler = Handler()
        return decoder

    answer, _, _, _ = await outcome(request(GOOD), panicking, columnar=True)  # type: ignore[arg-type]
    assert "can't be decoded" in str(answer)


def test_work_is_per_distinct_label_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand rows of two sets read two sets, whatever the order of their labels."""
    read: list[object] = []

    def counted(labels: dict[str, str]) -> LabelSet:
        read.append(labels)
        return label_set(labels)

    monkeypatch.setattr("ingestor.model.label_columns.label_set", counted)
    sets = [{"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "2", "b": "1"}]
    body = request(*({**GOOD, "labels": sets[number % 3]} for number in range(9_999)))
    metrics = ReferenceDecoder(descriptor()).decode(body).column("metrics").flatten()
    checked = ColumnRules(Rules(Limits())).check(metrics, NOW)
    assert checked.batch is not None
    assert len(read) == 2
    ids = checked.batch.columns.column("label_set_id").to_pylist()
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("decoder", DECODERS)
async def test_of_a_label_that_comes_twice_the_last_one_counts_in_each_row(decoder: type[Any]) -> None:
    """Also where rows have the same labels in another order."""
    one, two = (b"\x2a\x06\x0a\x01a\x12\x01" + value for value in (b"1", b"2"))
    metrics = [PLAIN + one + two, PLAIN + two + one, PLAIN + two + one]
    body = b"".join(b"\x0a" + bytes([len(metric)]) + metric for metric in metrics)
    _, rows, sets, _ = await outcome(body, decoder, columnar=True)
    assert [sets[row["label_set_id"]] for row in rows] == ['{"a":"2"}', '{"a":"1"}', '{"a":"1"}']
    assert await outcome(body, decoder, columnar=False) == await outcome(body, decoder, columnar=True)
