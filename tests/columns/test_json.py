"""Bulk JSON as columns: what it takes it reads as protobuf's reader does, and what is odd it leaves to that one."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from ingestor_api.analytics.v1 import LogMetricRequest

from ingestor.errors import Invalid
from ingestor.model import Limits
from ingestor.transport.columns import ReferenceDecoder
from ingestor.transport.messages import Converter
from ingestor.transport.rpc import ColumnOptions, Descriptors
from ingestor.transport.transcoding.json_body import JsonReader
from ingestor.transport.transcoding.json_columns import _SHORT_BYTES_MAX, ColumnReader
from ingestor.transport.transcoding.plain import PlainReader
from tests.columns.metrics import descriptor, request
from tests.recorder import Recorder, service_on

NOW = datetime.now(UTC)
DAY = NOW.strftime("%Y-%m-%d")

_texts = st.one_of(st.sampled_from(["checkout", "m", "", "ü", "a\tb", "nul\0"]), st.text(max_size=3))
_numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1.5, -0.0]),
)
_odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, "1.5", "NaN", "x", [], {}, float("nan"), float("inf"), 10**400, " 1", "1e3"]
)
_moments = st.one_of(
    st.sampled_from([f"{DAY}T00:00:00Z", f"{DAY}T00:00:00.123456789Z", f"{DAY}T00:00:00.5Z"]),
    st.sampled_from(
        [
            f"{DAY}T00:00:00+01:00",
            f"{DAY}t00:00:00z",
            f"{DAY} 00:00:00Z",
            "2026-02-30T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            f"{DAY}T24:00:00Z",
            f"{DAY}T23:59:60Z",
            f"{DAY}T00:00:00.1234567890Z",
            f"{DAY}T00:00Z",
            "yesterday",
            "",
            None,
            7,
        ]
    ),
)
_labels: st.SearchStrategy[Any] = st.one_of(
    st.dictionaries(_texts, _texts, max_size=3), st.sampled_from([None, {}, {"a": None}, {"a": 1}, [], "x"])
)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "serviceName": st.one_of(_texts, _odd),
    "metricName": _texts,
    "value": st.one_of(_numbers, _odd),
    "time": _moments,
    "labels": _labels,
    "service_name": _texts,
    "nope": _odd,
}
_plain = st.fixed_dictionaries(
    {"serviceName": _texts, "metricName": _texts, "value": _numbers},
    optional={"time": _moments, "labels": _labels},
)
_metrics = st.one_of(_plain, _plain, _plain, st.fixed_dictionaries({}, optional=_fields), _odd)
_terms: dict[str, st.SearchStrategy[Any]] = {
    "ack": st.sampled_from(["ACK_LEVEL_QUEUED", "ACK_LEVEL_UNSPECIFIED", "QUEUED", 1, 7, None, "", True]),
    "requestId": st.one_of(_texts, _odd, st.sampled_from(["r", "x" * 129])),
    "request_id": _texts,
}
_bodies = st.one_of(
    st.lists(_metrics, max_size=5).map(lambda metrics: {"metrics": metrics}),
    st.fixed_dictionaries({"metrics": st.lists(_plain, max_size=3)}, optional=_terms),
    st.sampled_from([{}, {"metrics": None}, {"metrics": {}}, {"metrics": [], "x": 1}, {"nope": []}]),
)


async def outcome(body: bytes, method: str, *, columnar: bool) -> tuple[object, list[dict[str, Any]], object]:
    """What the caller hears, what the queue got, and whether columns were read."""
    queue = Recorder()
    service = service_on(queue, Limits(), lambda: NOW)
    descriptors = Descriptors.of_package("ingestor_api")
    rpcs = descriptors.bind(service, ColumnOptions(ReferenceDecoder, 50_000))
    [rpc] = [rpc for rpc in rpcs if rpc.path.endswith(f"/{method}")]
    reader = JsonReader(rpc.request, descriptors.pool, elements_max=50_000)
    read: Any = None
    try:
        read = (
            reader.read_columns(body, ColumnReader(descriptor(f"{method}Request"), 50_000))
            if columnar
            else reader.read(body)
        )
        if isinstance(read, pa.RecordBatch):
            answer: object = await rpc.encoded(await rpc.answer_columns(read))
        else:
            answer = await rpc.encoded(await rpc.answer_typed(read))
    except Invalid as refusal:
        answer = (refusal.message, refusal.violations)
    rows = [row for batch in queue.batches for row in batch.columns.to_pylist()]
    rows.extend({"ack": ack, "request": request} for ack, request in queue.terms)
    return answer, rows, isinstance(read, pa.RecordBatch)


@settings(deadline=None, max_examples=400)
@given(_bodies)
def test_both_readers_agree(value: object) -> None:
    """The same rows, answers and refusals, whatever a body holds."""
    body = json.dumps(value).encode()
    slow, fast = (asyncio.run(outcome(body, "LogMetrics", columnar=columnar)) for columnar in (False, True))
    assert repr(slow[:2]) == repr(fast[:2])


_series = st.fixed_dictionaries(
    {"serviceName": _texts, "metricName": _texts},
    optional={
        "timeUnixNano": st.lists(
            st.one_of(
                st.integers(0, 2).map(lambda n: str(int(NOW.timestamp() * 1e9) + n)),
                st.integers(-(2**64), 2**64),
                st.sampled_from(
                    ["-1", "1.0", " 1", "1_0", "", "+1", "²", "1" * 5000, "-" + "0" * 25, 1.0, None, True]
                ),
            ),
            max_size=3,
        ),
        "value": st.lists(st.one_of(_numbers, _odd), max_size=3),
        "labels": _labels,
    },
)


@settings(deadline=None, max_examples=400)
@given(st.lists(_series, max_size=3))
def test_both_readers_agree_on_series(series: list[object]) -> None:
    """Lists of numbers, too; 64-bit ones are strings in JSON, or numbers."""
    body = json.dumps({"series": series}).encode()
    slow, fast = (asyncio.run(outcome(body, "WriteSeries", columnar=columnar)) for columnar in (False, True))
    assert repr(slow[:2]) == repr(fast[:2])


PLAIN = {"serviceName": "s", "metricName": "m", "value": 1.5}


@pytest.mark.parametrize(
    ("metric", "columns"),
    [
        (PLAIN, True),
        ({**PLAIN, "value": 7, "time": f"{DAY}T00:00:00.123456Z", "labels": {"a": "b"}}, True),
        ({"serviceName": "s", "metricName": "m"}, True),
        ({**PLAIN, "time": f"{DAY}T00:00:00+01:00"}, False),
        ({**PLAIN, "value": "1.5"}, False),
        ({"service_name": "s", "metricName": "m", "value": 1.5}, False),
        ({**PLAIN, "nope": 1}, False),
    ],
)
async def test_what_is_plain_is_read_as_columns(metric: dict[str, Any], *, columns: bool) -> None:
    """The way that most senders write; the rest takes the other one."""
    body = json.dumps({"metrics": [PLAIN, metric]}).encode()
    assert (await outcome(body, "LogMetrics", columnar=True))[2] is columns


@pytest.mark.parametrize(
    ("terms", "columns"),
    [
        ({"ack": "ACK_LEVEL_COMMITTED", "requestId": "r"}, True),
        ({"ack": 3}, False),
        ({"request_id": "r"}, False),
    ],
)
async def test_plain_requests_may_say_what_they_wait_for(terms: dict[str, Any], *, columns: bool) -> None:
    """A request's further fields are read with its columns."""
    body = json.dumps({"metrics": [PLAIN], **terms}).encode()
    assert (await outcome(body, "LogMetrics", columnar=True))[2] is columns


@pytest.mark.parametrize("more_bytes", [0, 1], ids=["short", "long"])
@pytest.mark.parametrize(
    ("inside", "columns"),
    [
        ('"labels":{"a":"b"}', True),
        ('"labels" : {"a":"b"}', False),
        ('"labels":{"a":"b", "c" :"d"}', False),
        ('"labels":{"a": "b: c"}', True),
        ('"labels":{"a": "say \\": "}', False),
        ('"value":2', None),
        ('"labels":{"a":"b","a":"c"}', None),
        # As many keys too few before colons as there are too many of them.
        ('"labels" :{"a":"b","a":"c"}', None),
        ('"labels":{"a":"b","a"\n:"c"}', None),
        ('"labels":{"a":"b","\\u0061":"c"}', None),
        ('"labels":{"a":"b","a":"c \\": "}', None),
    ],
)
async def test_a_key_that_stands_twice_is_found(inside: str, columns: bool | None, more_bytes: int) -> None:
    """Whatever the white space, and which way keys are counted by the body's length. `columns` is None for bodies
    that must be refused, which only the other reader does."""
    begin, rest = b'{"metrics":[', f'{{"serviceName":"s","metricName":"m","value":1,{inside}}}]}}'.encode()
    body = begin + rest.rjust(_SHORT_BYTES_MAX + more_bytes - len(begin))
    answer, rows, as_columns = await outcome(body, "LogMetrics", columnar=True)
    assert as_columns is bool(columns)
    assert bool(rows) is (columns is not None)
    assert ("twice" in str(answer)) is (columns is None)


async def test_more_elements_than_allowed_are_left_to_the_other_reader() -> None:
    """Which says so."""
    body = json.dumps({"metrics": [PLAIN] * 3}).encode()
    assert ColumnReader(descriptor(), 2).read(body) is None
    assert ColumnReader(descriptor(), 3).read(body) is not None


def test_the_columns_are_those_of_the_decoder() -> None:
    """Same types and values as from protobuf's bytes, so that everything behind is shared."""
    now = int(time.time())
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    value = {
        "metrics": [{**PLAIN, "time": f"{moment}.000000007Z", "labels": {"a": "b"}}, {"metricName": "n"}]
    }
    read = ColumnReader(descriptor(), 50_000).read(json.dumps(value).encode())
    assert read is not None
    body = request(
        {"service_name": "s", "metric_name": "m", "value": 1.5, "time": (now, 7), "labels": {"a": "b"}},
        {"metric_name": "n"},
    )
    decoded = ReferenceDecoder(descriptor()).decode(body)
    assert read.to_pylist() == decoded.to_pylist()


UNARY = Descriptors.of_package("ingestor_api").pool.FindMessageTypeByName("analytics.v1.LogMetricRequest")
PLAIN_READER = PlainReader(UNARY, LogMetricRequest)
POOL_READER = JsonReader(
    GetMessageClass(UNARY), Descriptors.of_package("ingestor_api").pool, elements_max=50_000
)


@settings(deadline=None, max_examples=400)
@given(_metrics)
def test_a_single_plain_metric_is_what_the_other_reader_says(value: object) -> None:
    """Where the plain reader takes a body at all."""
    body = json.dumps(value).encode()
    plain = PLAIN_READER.read(body)
    if plain is not None:
        read = POOL_READER.read(body)
        other = Converter().to_typed(read.DESCRIPTOR, LogMetricRequest)(read)  # type: ignore[arg-type]
        assert plain == other
        assert repr(getattr(plain, "value", None)) == repr(other.value)  # also of -0.0


@pytest.mark.parametrize(
    ("inside", "taken"),
    [
        ('"value":1', True),
        ('"value":1,"value":2', False),
        ('"value" :1,"labels":{"a":"b","a":"c"}', False),
        ('"value":1,"labels":{"a":"b"}', True),
        ('"value":true', False),
        ('"value":1,"nope":1', False),
        ('"value" :1,"ack"\n: "ACK_LEVEL_QUEUED","requestId"\t:"a","labels" : {"a" :"b"}', True),
        ('"value":1,"labels":{"a":"b","\\u0061":"c"}', False),
        ('"value":1,"requestId":"a","request\\u0049d":"b"', False),
        ('"value":1,"requestId":"\\u0022,\\u0022value\\u0022:2"', True),
        ('"value":1,"requestId":"\\",\\"value\\":2"', False),
    ],
)
def test_what_is_plain_in_a_single_metric(inside: str, taken: bool) -> None:
    """No key twice, whatever space or escapes are in it, nothing unknown, nothing that needs a rule, and no quote
    within a string."""
    body = f'{{"serviceName":"s","metricName":"m",{inside}}}'.encode()
    assert (PLAIN_READER.read(body) is not None) is taken
