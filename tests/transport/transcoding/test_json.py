"""JSON as proto3 JSON has it: how values are written, and that what json_format is lenient with is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.errors import Invalid
from ingestor.transport.messages import Converter
from ingestor.transport.transcoding.json_body import JsonReader, print_json
from ingestor.transport.transcoding.plain import PlainReader
from tests.transport.library.service import Library


def read(library: Library, body: Any) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return JsonReader(library.message("Everything"), library.descriptors.pool, elements_max=100).read(text)


def test_values_are_written_as_proto3_json_has_them(library: Library) -> None:
    """64-bit integers as strings, what is no number in quotes, bytes in base64, zeros and empty lists shown."""
    message = library.new(
        "Everything",
        double_value=float("nan"),
        float_value=float("-inf"),
        int64_value=2**53 + 1,
        uint64_value=2**64 - 1,
        bytes_value=b"\xfb\xff",
        doubles=[0.1, float("inf")],
        numbers={-1: 0.5},
        duration={"seconds": 1, "nanos": 500_000_000},
        time={"seconds": 1},
        int64_wrapper={"value": 5},
        mask={"paths": ["a.b_c"]},
        renamed="x",
        genre=2,
    )
    said = json.loads(print_json(message, library.descriptors.pool))
    expected = json.loads(
        """{"doubleValue": "NaN", "floatValue": "-Infinity", "int64Value": "9007199254740993",
            "uint64Value": "18446744073709551615", "bytesValue": "+/8=", "doubles": [0.1, "Infinity"],
            "numbers": {"-1": 0.5}, "duration": "1.500s", "time": "1970-01-01T00:00:01Z", "int64Wrapper": "5",
            "mask": "a.bC", "calledOtherwise": "x", "genre": "GENRE_POEM",
            "int32Value": 0, "sint64Value": "0", "boolValue": false, "stringValue": "", "strings": [],
            "labels": {}, "genres": []}"""
    )
    assert {name: said[name] for name in expected} == expected
    assert not {"optionalDouble", "optionalString", "stringWrapper", "child", "textChoice", "any"} & set(said)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"doubleValue": 1, "floatValue": "1.5"}, {"double_value": 1.0, "float_value": 1.5}),
        ({"doubleValue": "-1e3"}, {"double_value": -1e3}),
        ({"double_wrapper": "Infinity"}, {"double_wrapper": {"value": float("inf")}}),
        ({"int32Value": 1.0, "int64Value": "1e3"}, {"int32_value": 1, "int64_value": 1000}),
        ({"uint32Value": 1e5}, {"uint32_value": 100_000}),
        ({"bytesValue": "-_8"}, {"bytes_value": b"\xfb\xff"}),
        ({"blobs": ["+/8=", "+/8", ""]}, {"blobs": [b"\xfb\xff", b"\xfb\xff", b""]}),
        ({"genre": 2, "genres": ["GENRE_NOVEL", 7]}, {"genre": 2, "genres": [1, 7]}),
        ({"numbers": {"-1": 1, "0": "NaN"}, "byBool": {"true": 1}}, None),
        (
            {"time": "2026-01-02T03:04:05.123456789+01:00"},
            {"time": {"seconds": 1767319445, "nanos": 123456789}},
        ),
        ({"duration": "-0.5s"}, {"duration": {"nanos": -500_000_000}}),
        ({"durations": {"a": "1s"}}, {"durations": {"a": {"seconds": 1}}}),
        ({"mask": "a,bC.d"}, {"mask": {"paths": ["a", "b_c.d"]}}),
        ({"child": None, "doubles": None, "int64Wrapper": None, "time": None}, {}),
        ({"struct": {"a": [1, None, {"b": True}]}, "value": None}, None),
        ({"any": {"@type": "type.googleapis.com/library.v1.Book", "pages": "3"}}, None),
        ({"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}}, None),
        ({"any": {"@type": "type.googleapis.com/google.protobuf.FieldMask", "value": "a"}}, None),
        ({"any": {"@type": "type.googleapis.com/google.protobuf.Int64Value", "value": "3"}}, None),
        ({"any": {"@type": "type.googleapis.com/google.protobuf.Value", "value": [1.5]}}, None),
        ({"any": {}}, {"any": {}}),
    ],
)
def test_what_proto3_json_allows_is_read(
    library: Library, body: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    """Strictness takes nothing of it away; without an expectation, json_format says what it means."""
    if expected is None:
        wanted: Any = json_format.ParseDict(
            body, library.new("Everything"), descriptor_pool=library.descriptors.pool
        )
    else:
        wanted = library.new("Everything", **expected)
    assert str(read(library, body)) == str(wanted)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"doubleValue": True}, "double_value"),
        ({"doubleValue": "1_0"}, "double_value"),
        ({"doubleValue": " 1"}, "double_value"),
        ({"doubleValue": "+1"}, "double_value"),
        ({"doubleValue": "inf"}, "double_value"),
        ({"doubleValue": "infinity"}, "double_value"),
        ({"doubleValue": "NAN"}, "double_value"),
        ({"doubleValue": "1e400"}, "double_value"),
        ({"doubleValue": "\u0661"}, "double_value"),
        ({"floatValue": "1e39"}, "float_value"),
        ({"floatValue": 10**39}, "float_value"),
        ({"doubles": [1, True]}, "doubles[1]"),
        ({"doubleWrapper": False}, "double_wrapper"),
        ({"numbers": {"1": True}}, 'numbers["1"]'),
        ({"numbers": {"1_0": 1}}, 'numbers["1_0"]'),
        ({"numbers": {"01": 1}}, 'numbers["01"]'),
        ({"numbers": {"1.0": 1}}, 'numbers["1.0"]'),
        ({"numbers": {"-0": 1}}, 'numbers["-0"]'),
        ({"int32Value": 1.5}, "int32_value"),
        ({"int32Value": "1.5"}, "int32_value"),
        ({"int32Value": True}, "int32_value"),
        ({"int32Value": "1_0"}, "int32_value"),
        ({"int64Value": "1\n"}, "int64_value"),
        ({"int64Value": "+1"}, "int64_value"),
        ({"int64Value": "\u0661"}, "int64_value"),
        ({"int64Wrapper": "1_0"}, "int64_wrapper"),
        ({"uint32Value": -1}, "uint32_value"),
        ({"boolValue": "1"}, "bool_value"),
        ({"boolValue": 1}, "bool_value"),
        ({"boolWrapper": "true"}, "bool_wrapper"),
        ({"stringValue": 1}, "string_value"),
        ({"genre": "1"}, "genre"),
        ({"genre": " 1"}, "genre"),
        ({"genre": True}, "genre"),
        ({"genre": 1.5}, "genre"),
        ({"genre": "POEM"}, "genre"),
        ({"genres": [1, "2"]}, "genres[1]"),
        ({"byBool": {"true": "1"}}, 'by_bool["true"]'),
        ({"bytesValue": "YQ*="}, "bytes_value"),
        ({"bytesValue": "Y Q"}, "bytes_value"),
        ({"bytesValue": "YQ="}, "bytes_value"),
        ({"bytesValue": "Y"}, "bytes_value"),
        ({"bytesWrapper": "Y\nQ"}, "bytes_wrapper"),
        ({"time": "2026-1-2T3:4:5Z"}, "time"),
        ({"time": "2026-01-02T03:04:05.1_2Z"}, "time"),
        ({"time": "2026-01-02T03:04:05.Z"}, "time"),
        ({"time": "2026-01-02T03:04:05+1:00"}, "time"),
        ({"time": "2026-01-02T03:04:05+01:75"}, "time"),
        ({"times": ["2026-01-02T03:04:05Z", "2026-1-2T3:4:5Z"]}, "times[1]"),
        ({"times": "2026-01-02T03:04:05Z"}, "times"),
        ({"duration": "1_0s"}, "duration"),
        ({"duration": " 1s"}, "duration"),
        ({"duration": "1.1_2s"}, "duration"),
        ({"durations": {"a": " 1s"}}, 'durations["a"]'),
        ({"mask": "a b"}, "mask"),
        ({"child": []}, "child"),
        ({"child": ""}, "child"),
        ({"child": {"child": {"doubleValue": True}}}, "child.child.double_value"),
        ({"children": {"a": []}}, 'children["a"]'),
        ({"children": {"a": {"genre": "1"}}}, 'children["a"].genre'),
        ({"more": [{}, {"genre": "1"}]}, "more[1].genre"),
        ({"more": [[]]}, "more[0]"),
        ({"stringValue": "a", "string_value": "b"}, "string_value"),
        ({"more": [{"stringValue": "a", "string_value": None}]}, "more[0].string_value"),
        ({"rangeChoice": [], "genre": 1}, "range_choice"),
        ({"struct": {"a": [float("nan")]}}, "struct"),
        ({"value": float("inf")}, "value"),
        ({"value": {"a": [float("-inf")]}}, "value"),
        ({"any": {"@type": "type.googleapis.com/library.v1.Book", "pages": "1_0"}}, "any.pages"),
        ({"any": {"@type": "type.googleapis.com/google.protobuf.DoubleValue", "value": True}}, "any"),
        (
            {"any": {"@type": "type.googleapis.com/google.protobuf.MethodOptions", "[google.api.http]": {}}},
            "any",
        ),
        ({"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": " 1s"}}, "any"),
        ({"any": {"@type": "type.googleapis.com/google.protobuf.Value", "value": float("nan")}}, "any"),
    ],
)
def test_what_json_format_takes_too_easily_is_refused(
    library: Library, body: dict[str, Any], field: str
) -> None:
    """With the field's path."""
    with pytest.raises(Invalid) as caught:
        read(library, body)
    assert [violation.field for violation in caught.value.violations] == [field]


_odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        "1",
        "NaN",
        "",
        " 1",
        "1_0",
        [],
        {},
        1.5,
        7,
        "2026-01-02T03:04:05Z",
        "2026-1-2T3:4:5Z",
        "GENRE_POEM",
    ]
)
_NAMES = """doubleValue double_value stringValue genre time times labels optionalDouble textChoice doubles
calledOtherwise renamed strings optionalString genres numbers boolValue"""
_names = st.sampled_from(_NAMES.split())


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(_names, st.one_of(_odd, st.text(max_size=3), st.floats()), max_size=4))
def test_the_fast_reader_agrees_with_the_strict_one(library: Library, body: dict[str, Any]) -> None:
    """Whatever it takes, the strict one reads as the same."""
    descriptor: Any = library.message("Everything").DESCRIPTOR
    text = json.dumps(body).encode()
    fast = PlainReader(descriptor, library.api.Everything).read(text)
    if fast is not None:
        assert fast == Converter().to_typed(descriptor, library.api.Everything)(read(library, text))


def test_the_fast_reader_takes_what_is_plain(library: Library) -> None:
    """Or else it would agree with everybody."""
    descriptor: Any = library.message("Everything").DESCRIPTOR
    reader = PlainReader(descriptor, library.api.Everything)
    body = b'{"doubleValue":1,"genre":"GENRE_POEM","time":"2026-01-02T03:04:05Z","labels":{"a":"b"}}'
    assert reader.read(body) is not None
    assert reader.read(b'{"times":"2026-01-02T03:04:05Z"}') is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"children": {"a": {"int32Value": "x"}}}, 'children["a"].int32_value: must be an integer from'),
        ({"children": {"a": None}}, 'children["a"]: must be a JSON object'),
        (
            {"more": [{}, {"int64s": ["1", "x"]}]},
            "more[1].int64s[1]: must be an integer from -92233720368547",
        ),
        ({"int32s": []}, "int32s: is no field of Everything (it has doubleValue"),
        ({"empty": {"a": 1}}, "empty.a: is no field of Empty (it has none)"),
        ({"empty": []}, "empty: must be a JSON object"),
        ({"uint32Value": -1}, "uint32_value: must be an integer from 0 to 4294967295"),
        ({"int32Value": 2**31}, "int32_value: must be an integer from"),
        ({"bytesValue": "Y"}, "bytes_value: must be base64"),
        ({"floatValue": 1e39}, "float_value: is out of range"),
        ({"numbers": {"x": 1}}, 'numbers["x"]: has a key that must be an integer from -2147483648'),
        ({"numbers": {"1": "x"}}, 'numbers["1"]: must be a number'),
        ({"byBool": {"yes": 1}}, 'by_bool["yes"]: has a key that must be true or false'),
        ({"wrappers": {"1": 1}}, 'wrappers["1"]: must be a string'),
        ({"int64Wrapper": "x"}, "int64_wrapper: must be an integer from"),
        ({"genres": [1, "X"]}, "genres[1]: must be a value of Genre, by name or number"),
        ({"times": ["x"]}, "times[0]: must be a time in RFC 3339"),
        ({"mask": 1}, "mask: must be field paths"),
        ({"struct": 1}, "struct: must be a JSON object"),
        ({"struct": {"a": 10**400}}, "struct: holds a number that is out of range"),
        ({"list": {}}, "list: must be a JSON array"),
        ({"any": {"a": 1}}, "any: must have the URL of its type as @type"),
        ({"any": {"@type": "x/y"}}, "any: has an @type that is not known here: x/y"),
        ({"any": {"@type": "x/library.v1.Book", "pages": "x"}}, "any.pages: must be an integer"),
        ({"any": {"@type": "x/google.protobuf.Duration"}}, "any: must be what its @type says, Duration"),
        ({"textChoice": "a", "rangeChoice": {}}, "range_choice: excludes text_choice, which is given, too"),
    ],
)
def test_what_is_wrong_is_named_by_its_whole_path(library: Library, body: Any, said: str) -> None:
    """With indices and keys, in our own words."""
    with pytest.raises(Invalid) as caught:
        read(library, body)
    assert caught.value.message.startswith(said)


async def test_a_hundred_messages_in_one_another_are_as_many_as_are_read(library: Library) -> None:
    """And answered. More are refused, whatever they hold each other in, and none takes long."""
    deepest = b'{"child":' * 99 + b"{}" + b"}" * 99
    assert await library.call("POST", "/v1/everything", deepest)
    for form in ('{"child":%s}', '{"more":[%s]}', '{"children":{"a":%s}}', '{"struct":{"a":%s}}'):
        for depth in (100, 300, 900):
            body = "{}"
            for _ in range(depth):
                body = form % body
            with pytest.raises(Invalid, match="is nested too deeply|too many levels"):
                await library.call("POST", "/v1/everything", body)


def test_everything_goes_through_a_typed_method_and_back(library: Library) -> None:
    """Read, handed over as a typed message, and written again."""
    body = json.loads(
        """{"doubleValue": 1.5, "int64Value": "7", "bytesValue": "+/8=", "genre": "GENRE_POEM", "doubles": [1.0],
            "labels": {"a": "b"}, "time": "2026-01-02T03:04:05Z", "duration": "1.500s", "int64Wrapper": "5",
            "child": {"child": {"stringValue": "x"}}, "rangeChoice": {"least": 0}, "calledOtherwise": "y",
            "struct": {"a": [1.5, null, {"b": true}]}, "value": ["x", 2.0], "mask": "a,bC",
            "any": {"@type": "type.googleapis.com/library.v1.Range", "least": 3},
            "bytesWrapper": "YQ==", "durations": {"a": "3s"}, "times": ["2026-01-02T03:04:05Z"], "genres": [7]}"""
    )
    answer = json.loads(asyncio.run(library.call("POST", "/v1/everything", json.dumps(body))))
    plain = {name: answer[name] for name in body if name != "child"}
    assert plain == {name: value for name, value in body.items() if name != "child"}
    assert answer["child"]["child"]["stringValue"] == "x"
