"""What grpc-gateway does with parameters, and what is done here: each test is a row of ARCHITECTURE.md's table."""

from __future__ import annotations

from typing import Any

import pytest

from ingestor.errors import Invalid
from tests.transport.library.service import Library


def asked(library: Library, query: str) -> Any:
    return library.ask("GET", f"/v1/everything?{query}")


def refused(library: Library, *queries: str) -> None:
    for query in queries:
        with pytest.raises(Invalid):
            asked(library, query)


def test_kinds_of_parameters(library: Library) -> None:
    """parameters: nested, by proto or JSON name, repeated, `m[k]=v`, enums by name or number, times, durations,
    masks, wrappers"""
    read = asked(
        library, "child.child.string_value=x&child.child.int32Value=1&child.labels[a]=b&strings=a&strings=b"
    )
    assert (read.child.child.string_value, read.child.child.int32_value) == ("x", 1)
    assert (read.child.labels, read.strings) == ({"a": "b"}, ["a", "b"])
    read = asked(library, "genre=GENRE_POEM&genres=1&genres=GENRE_POEM&labels[~!@%23$%25]=v&numbers[-2]=1.5")
    assert (read.genre, read.genres) == (2, [1, 2])
    assert (read.labels, read.numbers) == ({"~!@#$%": "v"}, {-2: 1.5})
    read = asked(library, "time=2016-12-15T12:23:32.000000049Z&duration=90s&mask=float_value,doubleValue")
    assert (read.time.isoformat()[:19], read.duration.total_seconds()) == ("2016-12-15T12:23:32", 90)
    assert read.mask.paths == ["float_value", "double_value"]
    read = asked(
        library, "int64Wrapper=-1&bool_wrapper=true&stringWrapper=&wrappers[2]=x&bytesValue=YWJjMTIz-_8%3D"
    )
    assert (read.int64_wrapper, read.bool_wrapper, read.string_wrapper) == (-1, True, "")
    assert (read.wrappers, read.bytes_value) == ({2: "x"}, b"abc123\xfb\xff")
    assert asked(library, "textChoice=x").text_choice == "x"


def test_booleans(library: Library) -> None:
    """booleans in Go's notations (`1`, `t`, `TRUE`)"""
    assert all(
        asked(library, f"boolValue={text}").bool_value for text in ("1", "t", "T", "true", "True", "TRUE")
    )
    assert not any(
        asked(library, f"boolValue={text}").bool_value for text in ("0", "f", "F", "false", "FALSE")
    )
    refused(library, "boolValue=yes", "boolValue=tRUE")


def test_numbers(library: Library) -> None:
    """numbers and durations in Go's notations (`0x10`, `inf`, `1m30s`)"""
    refused(
        library, "int32Value=0x10", "doubleValue=inf", "doubleValue=0x1p-2", "duration=1m30s", "duration=13h"
    )
    assert asked(library, "duration=90s").duration.total_seconds() == 90


def test_escapes(library: Library) -> None:
    """a broken escape in a query is 400"""
    refused(library, "stringValue=%", "stringValue=%zz", "%C3=1")


def test_semicolons(library: Library) -> None:
    """a semicolon in a query is 400"""
    assert asked(library, "stringValue=a;genre=1").string_value == "a;genre=1"


def test_unknown_parameters(library: Library) -> None:
    """unknown parameters are ignored"""
    refused(library, "nope=1", "child.nope=1")


def test_parameters_given_twice(library: Library) -> None:
    """a singular parameter given twice, or two of one oneof, is 400"""
    refused(
        library,
        "uint64Value=1&uint64Value=2",
        "uint64Value=1&uint64_value=1",
        "labels[a]=1&labels[a]=1",
        "textChoice=x&rangeChoice.least=1",
        "rangeChoice.least=1&textChoice=x",
    )
    assert asked(library, "rangeChoice.least=1&rangeChoice.most=2").range_choice.most == 2


def test_parameters_below_values(library: Library) -> None:
    """parameters below a field that has no fields are 400"""
    refused(library, "stringValue.x=1", "doubles.x=1", "genre.x=1", "more.stringValue=1", "labels.x=1")


def test_nulls(library: Library) -> None:
    """`null` for a time or a duration is 400"""
    refused(library, "time=null", "duration=null", "time=0000-01-01T00:00:00.00Z")


def test_what_is_no_parameter(library: Library) -> None:
    """parameters for google.protobuf.Struct and Value; `time.seconds=1`"""
    refused(library, "struct={}", "value=1", "time.seconds=1")


def test_parameters_beside_a_body(library: Library) -> None:
    """parameters beside `body: "*"`, or within the field that is the body, are ignored"""
    for method, url in (("POST", "/v1/everything?genre=1"), ("POST", "/v1/shelves/1/books?book.title=x")):
        with pytest.raises(Invalid, match="is no parameter"):
            library.ask(method, url, "{}")


def test_the_path_wins(library: Library) -> None:
    """the path wins over query and body"""
    url, body = "/v1/shelves/1/books/2", '{"name":"other","title":"t"}'
    assert library.ask("GET", "/v1/books/x?name=y&full=true") == library.api.GetBookRequest(
        name="x", full=True
    )
    for asked_ in (
        library.ask("PATCH", f"{url}?book.name=y", body),
        library.ask("PUT", url, f'{{"book":{body}}}'),
    ):
        assert asked_.book == library.api.Book(name="shelves/1/books/2", title="t")
