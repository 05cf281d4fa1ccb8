"""Query parameters: what they say of which field, and what is refused."""

from __future__ import annotations

import base64
import math
from typing import Any
from urllib.parse import quote_plus

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.errors import FieldViolation, Invalid
from ingestor.transport.transcoding.query import Parameters
from tests.transport.library.service import Library


def read(library: Library, query: str, bound: tuple[str, ...] = (), body: str = "") -> Any:
    """The message that these parameters say."""
    message = library.new("Everything")
    Parameters(message.DESCRIPTOR, frozenset(bound), body).read(query, message)
    return message


def refused(library: Library, query: str, bound: tuple[str, ...] = (), body: str = "") -> FieldViolation:
    with pytest.raises(Invalid) as caught:
        read(library, query, bound, body)
    [violation] = caught.value.violations
    return violation


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("double_value=1.5", {"double_value": 1.5}),
        ("doubleValue=-1e3", {"double_value": -1000.0}),
        ("doubleValue=-Infinity", {"double_value": -math.inf}),
        ("int64Value=-9223372036854775808", {"int64_value": -(2**63)}),
        ("uint64Value=18446744073709551615", {"uint64_value": 2**64 - 1}),
        ("fixed32Value=007", {"fixed32_value": 7}),
        ("boolValue=true", {"bool_value": True}),
        ("bool_value=0", {"bool_value": False}),
        ("stringValue=a+b%2Bc%26%3d", {"string_value": "a b+c&="}),
        ("stringValue=a=b=c", {"string_value": "a=b=c"}),
        ("stringValue=", {}),
        ("optionalString", {"optional_string": ""}),
        ("optionalDouble=0", {"optional_double": 0.0}),
        ("calledOtherwise=x", {"renamed": "x"}),
        ("renamed=x", {"renamed": "x"}),
        ("string%56alue=x", {"string_value": "x"}),
        ("bytesValue=-_8", {"bytes_value": b"\xfb\xff"}),
        ("bytesValue=%2B/8%3D", {"bytes_value": b"\xfb\xff"}),
        ("genre=GENRE_POEM", {"genre": 2}),
        ("genre=1", {"genre": 1}),
        ("strings=a&strings=&strings=a", {"strings": ["a", "", "a"]}),
        ("doubles=1&int64s=2&doubles=3", {"doubles": [1.0, 3.0], "int64s": [2]}),
        ("genres=1&genres=GENRE_POEM&genres=1", {"genres": [1, 2, 1]}),
        ("blobs=YQ&blobs=Yg%3D%3D", {"blobs": [b"a", b"b"]}),
        ("labels[a]=1&labels[b.c[d]]=2&labels[]=3", {"labels": {"a": "1", "b.c[d]": "2", "": "3"}}),
        ("labels%5Ba%5D=1", {"labels": {"a": "1"}}),
        ("numbers[-3]=1.5&numbers[4]=2", {"numbers": {-3: 1.5, 4: 2.0}}),
        ("byBool[true]=GENRE_POEM&by_bool[false]=1", {"by_bool": {True: 2, False: 1}}),
        ("child.child.int32_value=3", {"child": {"child": {"int32_value": 3}}}),
        ("child.genre=1&child.stringValue=x", {"child": {"string_value": "x", "genre": 1}}),
        ("child.labels[a.b]=c", {"child": {"labels": {"a.b": "c"}}}),
        ("int64Wrapper=0", {"int64_wrapper": {}}),
        (
            "stringWrapper=x&boolWrapper=true",
            {"string_wrapper": {"value": "x"}, "bool_wrapper": {"value": True}},
        ),
        ("bytesWrapper=YQ", {"bytes_wrapper": {"value": b"a"}}),
        ("mask=a,b.c,dE.fG,h_i", {"mask": {"paths": ["a", "b.c", "d_e.f_g", "h_i"]}}),
        ("mask=", {"mask": {}}),
        ("duration=90s", {"duration": {"seconds": 90}}),
        ("duration=-1.5s", {"duration": {"seconds": -1, "nanos": -500_000_000}}),
        ("durations[a]=3s", {"durations": {"a": {"seconds": 3}}}),
        ("time=1970-01-01T00:00:00Z", {"time": {}}),
        ("time=1970-01-01T01:00:00.5%2B01:00", {"time": {"nanos": 500_000_000}}),
        (
            "times=1970-01-01T00:00:01Z&times=1970-01-01T00:00:02Z",
            {"times": [{"seconds": 1}, {"seconds": 2}]},
        ),
        ("rangeChoice.least=1&range_choice.most=2", {"range_choice": {"least": 1, "most": 2}}),
        ("&&stringValue=x&", {"string_value": "x"}),
    ],
)
def test_parameters_are_fields(library: Library, query: str, expected: dict[str, Any]) -> None:
    """By their paths in either kind of names, with every kind of value that a text can be."""
    assert read(library, query) == library.new("Everything", **expected)


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        ("nope=1", "nope", "is no field of Everything"),
        ("child.nope=1", "child.nope", "is no field of Everything"),
        ("rangeChoice.nope=1", "rangeChoice.nope", "is no field of Range"),
        ("=1", "", "is no field of Everything"),
        ("child.=1", "child.", "is no field of Everything"),
        ("a%0Ab=1", "a\\nb", "is no field of Everything"),
        ("string_value.x=1", "string_value.x", "has no fields below string_value"),
        ("labels.a=1", "labels.a", "has no fields below labels"),
        ("more.stringValue=1", "more.stringValue", "has no fields below more"),
        ("time.seconds=1", "time.seconds", "has no fields below time"),
        ("child=1", "child", "is a message: give its fields, as child.field"),
        ("more=1", "more", "can't be a parameter: it holds messages"),
        ("children[a]=1", "children[a]", "can't be a parameter: it holds messages"),
        ("struct=1", "struct", "can't be a parameter: it holds messages"),
        ("any=1", "any", "can't be a parameter: it holds messages"),
        ("labels=1", "labels", "is a map: give its values as labels[key]"),
        ("strings[0]=1", "strings[0]", "is no map"),
        ("stringValue=a&stringValue=a", "stringValue", "is given more than once"),
        ("stringValue=a&string_value=b", "string_value", "is given more than once"),
        ("child.genre=1&child.genre=1", "child.genre", "is given more than once"),
        ("time=1970-01-01T00:00:00Z&time=", "time", "is given more than once"),
        ("labels[a]=1&labels[a]=2", "labels[a]", "is given more than once"),
        ("numbers[1]=1&numbers[01]=2", "numbers[01]", "is given more than once"),
        ("numbers[x]=1", "numbers[x]", "must be an integer from -2147483648 to 2147483647"),
        (
            "textChoice=a&rangeChoice.least=1",
            "rangeChoice.least",
            "excludes text_choice, which is given, too",
        ),
        ("rangeChoice.most=1&textChoice=", "textChoice", "excludes range_choice, which is given, too"),
        (
            "child.textChoice=&child.rangeChoice.least=1",
            "child.rangeChoice.least",
            "excludes text_choice, which is given, too",
        ),
        (".".join(["child"] * 16) + ".genre=1", "child." * 16 + "gen…", "is nested too deeply"),
        ("doubleValue=", "doubleValue", "must be a number"),
        ("doubleValue=1_0", "doubleValue", "must be a number"),
        ("doubleValue=inf", "doubleValue", "must be a number"),
        ("doubleValue=+1", "doubleValue", "must be a number"),
        ("doubleValue=1e400", "doubleValue", "is out of range"),
        ("floatValue=1e39", "floatValue", "is out of range"),
        ("int32Value=2147483648", "int32Value", "must be an integer from -2147483648 to 2147483647"),
        ("int32Value=1.0", "int32Value", "must be an integer from -2147483648 to 2147483647"),
        (
            "int64Value=0x10",
            "int64Value",
            "must be an integer from -9223372036854775808 to 9223372036854775807",
        ),
        (
            "int64s=1&int64s=x",
            "int64s",
            "must be an integer from -9223372036854775808 to 9223372036854775807",
        ),
        ("uint32Value=-1", "uint32Value", "must be an integer from 0 to 4294967295"),
        ("uint64Value=" + "9" * 5000, "uint64Value", "must be an integer from 0 to 18446744073709551615"),
        ("fixed32Value=%D9%A1", "fixed32Value", "must be an integer from 0 to 4294967295"),
        ("boolValue=yes", "boolValue", "must be true or false"),
        ("boolValue=", "boolValue", "must be true or false"),
        ("genre=POEM", "genre", "must be a value of Genre, by name or number"),
        ("genre=3", "genre", "must be a value of Genre, by name or number"),
        ("bytesValue=YQ%3D", "bytesValue", "must be base64"),
        ("bytesValue=Y", "bytesValue", "must be base64"),
        ("bytesValue=Y*Q", "bytesValue", "must be base64"),
        ("duration=90", "duration", "must be seconds, such as 1.5s"),
        ("duration=999999999999s", "duration", "must be seconds, such as 1.5s"),
        ("time=1970-1-1T00:00:00Z", "time", "must be a time in RFC 3339, such as 2026-01-31T12:00:00Z"),
        ("time=1970-02-30T00:00:00Z", "time", "must be a time in RFC 3339, such as 2026-01-31T12:00:00Z"),
        (
            "time=1970-01-01T00:00:00+01:00",
            "time",
            "must be a time in RFC 3339, such as 2026-01-31T12:00:00Z",
        ),
        ("mask=a,,b", "mask", "must be field paths with commas between them"),
        ("mask=foo__bar", "mask", "must be field paths in which a small letter follows each _"),
        ("mask=a,b_", "mask", "must be field paths in which a small letter follows each _"),
        ("child.mask=a_1", "child.mask", "must be field paths in which a small letter follows each _"),
        ("mask=a_B", "mask", "must be field paths in which a small letter follows each _"),
        (
            "int64Wrapper=x",
            "int64Wrapper",
            "must be an integer from -9223372036854775808 to 9223372036854775807",
        ),
    ],
)
def test_what_is_refused_is_named(library: Library, query: str, field: str, said: str) -> None:
    """As it was written, with what is wrong with it."""
    violation = refused(library, query)
    # The fields that there are stand behind it.
    assert (violation.field, violation.description.partition(" (it has ")[0]) == (field, said)


@pytest.mark.parametrize(
    "query", ["stringValue=%", "stringValue=%zz", "%C3=1", "stringValue=%FF", "stringValue=\udcff"]
)
def test_a_broken_escape_is_invalid(library: Library, query: str) -> None:
    """In names and in values."""
    with pytest.raises(Invalid, match="escape|UTF-8"):
        read(library, query)


def test_too_many_parameters_are_refused(library: Library) -> None:
    """500 are taken."""
    assert len(read(library, "&".join(["strings=x"] * 500)).strings) == 500
    with pytest.raises(Invalid, match="too many parameters, 500 at most"):
        read(library, "&" * 500)


def test_what_path_and_body_say_is_no_parameter(library: Library) -> None:
    """The path's are passed over, whatever they say; the body's are refused."""
    bound = ("string_value", "child.time")
    assert read(library, "stringValue=x&child.time=x&genre=1", bound) == library.new("Everything", genre=1)
    assert refused(library, "child.genre=1", body="child").description.endswith("takes it from the body")
    assert refused(library, "genre=1", body="*").description.endswith("takes its fields from the body")


_ints = {name: st.integers(-(2**31), 2**31 - 1) for name in ("int32_value", "sint32_value", "sfixed32_value")}
_longs = {
    name: st.integers(-(2**63), 2**63 - 1) for name in ("int64_value", "sint64_value", "sfixed64_value")
}
_texts = st.text(max_size=5)
_doubles = st.floats(allow_nan=False)
_moment = st.fixed_dictionaries(
    {"seconds": st.integers(-(10**10), 10**11), "nanos": st.integers(0, 10**9 - 1)}
)
_scalars: dict[str, st.SearchStrategy[Any]] = {
    **_ints,
    **_longs,
    "uint32_value": st.integers(0, 2**32 - 1),
    "uint64_value": st.integers(0, 2**64 - 1),
    "double_value": _doubles,
    "float_value": st.floats(width=32, allow_nan=False),
    "bool_value": st.booleans(),
    "string_value": _texts,
    "bytes_value": st.binary(max_size=5),
    "genre": st.integers(0, 2),
    "optional_double": _doubles,
    "optional_string": _texts,
    "doubles": st.lists(_doubles, max_size=3),
    "strings": st.lists(_texts, max_size=3),
    "blobs": st.lists(st.binary(max_size=3), max_size=3),
    "labels": st.dictionaries(_texts, _texts, max_size=3),
    "numbers": st.dictionaries(st.integers(-(2**31), 2**31 - 1), _doubles, max_size=3),
    "time": _moment,
    "duration": st.fixed_dictionaries({"seconds": st.integers(-(10**11), 10**11)}),
    "string_wrapper": _texts.map(lambda text: {"value": text}),
    "text_choice": _texts,
    "renamed": _texts,
    "times": st.lists(_moment, max_size=2),
}
_fields = st.fixed_dictionaries({}, optional=_scalars)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=_fields, child=_fields, grandchild=_fields, json_names=st.booleans())
def test_a_message_written_as_parameters_comes_back(
    library: Library,
    fields: dict[str, Any],
    child: dict[str, Any],
    grandchild: dict[str, Any],
    json_names: bool,
) -> None:
    """Whatever is in it, by either kind of names."""
    child = {**child, "child": grandchild} if grandchild else child
    message = library.new("Everything", **fields, **({"child": child} if child else {}))
    pairs = _written(message, "", json_names)
    query = "&".join(f"{quote_plus(name)}={quote_plus(text)}" for name, text in pairs)
    again = read(library, query)
    # Of submessages with nothing but zeros in them no parameter tells.
    assert again == message or _written(again, "", json_names) == pairs


def _written(message: Message, prefix: str, json_names: bool) -> list[tuple[str, str]]:
    """The fields that are set, as parameters: written as JSON's strings are, without json_format's help."""
    pairs: list[tuple[str, str]] = []
    for field, value in message.ListFields():
        name = prefix + (field.json_name if json_names else field.name)
        below = field.message_type
        if below is not None and below.GetOptions().map_entry:
            pairs.extend((f"{name}[{key}]", _text(value[key])) for key in sorted(value))
        elif below is not None and not field.is_repeated and below.name == "Everything":
            pairs.extend(_written(value, name + ".", json_names))
        else:
            pairs.extend((name, _text(each)) for each in (value if field.is_repeated else [value]))
    return pairs


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, repr(value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Message):
        special: Any = value
        return str(special.value if special.DESCRIPTOR.name == "StringValue" else special.ToJsonString())
    return str(value)
