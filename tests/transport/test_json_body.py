"""JSON bodies to messages: what is refused, in which words, and at what price."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from google.api.http_pb2 import HttpRule
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ingestor.errors import FieldViolation, Invalid
from ingestor.transport.rpc import Descriptors
from ingestor.transport.status import json_of
from ingestor.transport.transcoding.aside import Aside
from ingestor.transport.transcoding.json_body import JsonReader
from ingestor.transport.transcoding.printable import printable

POOL = Descriptors.of_package("ingestor_api").pool
GOOD = {"serviceName": "s", "metricName": "m", "value": 1}


def reader(name: str, elements_max: int = 1000) -> JsonReader:
    message_class: type[Message] = GetMessageClass(POOL.FindMessageTypeByName(f"analytics.v1.{name}"))
    return JsonReader(message_class, POOL, elements_max=elements_max)


def refused(body: Any, name: str = "LogMetricRequest", elements_max: int = 1000) -> Invalid:
    """The refusal of this body, which can be said in JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Invalid) as caught:
        reader(name, elements_max).read(data)
    assert json.loads(json_of(caught.value).encode())["message"] == caught.value.message
    return caught.value


def violation(body: Any, name: str = "LogMetricRequest", elements_max: int = 1000) -> FieldViolation:
    [only] = refused(body, name, elements_max).violations
    return only


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"value": "x"}, "value: must be a number"),
        ({"value": "a\ud800\n"}, "value: must be a number"),
        ({"value": []}, "value: must be a number"),
        ({"value": 10**400}, "value: is out of range"),
        ({"serviceName": 1}, "service_name: must be a string"),
        ({"service_name": None, "metric_name": {}}, "metric_name: must be a string"),
        ({"serviceName": "\ud800"}, "service_name: holds half a surrogate pair, which is no text"),
        ({"time": "yesterday"}, 'time: must be a time in RFC 3339, such as "2026-01-31T12:00:00Z"'),
        ({"time": 1}, 'time: must be a time in RFC 3339, such as "2026-01-31T12:00:00Z"'),
        ({"labels": []}, "labels: must be a JSON object in which each value is a string"),
        ({"labels": {"a": 1}}, 'labels["a"]: must be a string'),
        ({"labels": {"\udfff": "1"}}, 'labels["\\udfff"]: has a key that is no text'),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(fields: dict[str, Any], said: str) -> None:
    """The field in proto names and what is wrong with it: no paths of json_format's, no Python."""
    assert str(violation(fields)) == said
    within = violation({"metrics": [GOOD, fields]}, "LogMetricsRequest")
    assert str(within) == "metrics[1]." + said


@pytest.mark.parametrize("name", ["\ud800", "a\0\n\u202e", "[x]", "x" * 4_000_000, "é" * 101])
def test_an_unknown_name_is_said_back_short_and_printable(name: str) -> None:
    """Half a surrogate pair is in no protobuf string, and a name may be as long as the body."""
    for found in (violation({name: 1}), violation({"metrics": [{name: 1}]}, "LogMetricsRequest")):
        said = found.field.removeprefix("metrics[0].")
        assert said == printable(name)
        assert said.isprintable()
        assert len(said) <= 100
        assert found.description.startswith("is no field of ")


@pytest.mark.parametrize("metrics", [{}, {"a": 1}, "x", 7])
def test_a_list_must_be_an_array(metrics: Any) -> None:
    """The field is named, not an element."""
    found = violation({"metrics": metrics}, "LogMetricsRequest")
    assert str(found) == "metrics: must be a JSON array of which each element is a JSON object"


def test_a_key_that_stands_twice_is_refused() -> None:
    """Wherever it stands; json.loads alone would keep the last."""
    assert refused(b'{"value":1,"value":2}').message == "the key value stands twice in one JSON object"
    assert "key a stands twice" in refused(b'{"labels":{"a":"1","a":"1"}}').message
    assert "key \\ud800 stands twice" in refused(b'{"\\ud800":1,"\\ud800":1}').message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the body is not JSON: Expecting property name"),
        (b"\xff", "the body is not UTF-8: invalid start byte at byte 0"),
        (b"[]", "the body must be a JSON object"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"value":' + b"9" * 5000 + b"}", "the body holds a number of too many digits"),
    ],
)
def test_what_is_no_json_object_is_told(body: bytes, said: str) -> None:
    """Without what Python says of it."""
    assert refused(body).message.startswith(said)


def test_messages_within_themselves_and_oneofs() -> None:
    """A type that holds itself can be read, up to a bound; of a oneof's two the second is to blame."""
    rules = JsonReader(HttpRule, descriptor_pool.Default(), elements_max=10)
    assert rules.read(b'{"additionalBindings":[{"get":"/a"}]}') == HttpRule(
        additional_bindings=[HttpRule(get="/a")]
    )
    for depth in (50, 150, 5000):
        with pytest.raises(Invalid):
            rules.read(nested(depth, b'{"get":1}'))
    with pytest.raises(Invalid, match="put: excludes get, which is given, too"):
        rules.read(b'{"get":"/a","put":"/b"}')


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"metrics": [{}] * 11}, "metrics"),
        ({"metrics": [GOOD, {"labels": {str(each): "" for each in range(11)}}]}, "metrics[1].labels"),
        ({"metrics": [GOOD, {"labels": [1] * 11}]}, "metrics[1].labels"),
        ({"metrics": [{"serviceName": [1] * 11}]}, "metrics[0].service_name"),
    ],
)
def test_too_many_elements_are_refused_before_they_are_parsed(
    body: Any, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`{},` costs json_format 10 µs: the bound comes first."""
    monkeypatch.setattr(json_format, "ParseDict", None)
    found = violation(body, "LogMetricsRequest", elements_max=10)
    assert str(found) == f"{field}: has too many elements, 10 at most: send smaller batches"


def test_as_many_elements_as_the_bound_allows_are_read() -> None:
    """The bound is what may be sent."""
    body = json.dumps({"metrics": [GOOD] * 10}).encode()
    message: Any = reader("LogMetricsRequest", elements_max=10).read(body)
    assert len(message.metrics) == 10


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What json_format is asked to parse."""
    seen: list[Any] = []
    parse = json_format.ParseDict

    def counting(value: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(value)
        return parse(value, *args, **kwargs)

    monkeypatch.setattr(json_format, "ParseDict", counting)
    return seen


def test_the_bad_element_is_found_with_one_parse_of_each_value(parses: list[Any]) -> None:
    """The whole once, and then single values, as far as they could be wrong."""
    body = {"metrics": [{**GOOD, "value": 1.5}] * 99 + [{**GOOD, "value": "x"}]}
    assert violation(body, "LogMetricsRequest").field == "metrics[99].value"
    assert parses == [body, {"value": "x"}]


def test_an_element_of_a_list_of_numbers_is_named_by_its_index() -> None:
    """In a list of times."""
    found = violation({"series": [{"timeUnixNano": ["1", "x"]}]}, "WriteSeriesRequest")
    assert str(found).startswith(
        "series[0].time_unix_nano[1]: must be an integer from -9223372036854775808 to "
    )


def nested(depth: int, within: bytes = b"{}") -> bytes:
    """So many messages within each other, and another one in the last."""
    return b'{"additionalBindings":[' * depth + within + b"]}" * depth


def test_what_is_nested_too_deeply_is_refused_before_it_is_parsed(parses: list[Any]) -> None:
    """As protobuf counts: a hundred messages. json_format would take seconds to tell what is wrong."""
    rules = JsonReader(HttpRule, descriptor_pool.Default(), elements_max=10)
    assert rules.read(nested(99)).ByteSize() > 100
    parses.clear()
    for depth in (100, 200, 400, 900):
        with pytest.raises(Invalid, match="^the body is nested too deeply$"):
            rules.read(nested(depth))
    assert parses == []


def test_a_fault_that_is_deep_costs_two_parses(parses: list[Any]) -> None:
    """And not one of the whole for each level above it."""
    rules = JsonReader(HttpRule, descriptor_pool.Default(), elements_max=10)
    with pytest.raises(Invalid) as caught:
        rules.read(nested(98, b'{"get":1}'))
    assert str(caught.value) == ".".join(["additional_bindings[0]"] * 98) + ".get: must be a string"
    assert len(parses) == 2


async def test_what_is_large_runs_in_a_thread_and_few_at_once() -> None:
    """The loop goes on meanwhile; what is small is not worth a thread."""
    aside, here = Aside(), threading.get_ident()
    assert await aside.run(100, threading.get_ident) == here
    assert await aside.run(100_000, threading.get_ident) != here
    go_on, lock, most, now = threading.Event(), threading.Lock(), 0, 0

    def work() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        go_on.wait(10)
        with lock:
            now -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(aside.run(100_000, work))
        while now < 2:
            await asyncio.sleep(0.01)
        go_on.set()
    assert most == 2
