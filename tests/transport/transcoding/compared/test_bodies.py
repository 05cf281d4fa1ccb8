"""What grpc-gateway does with bodies, and what is done here: each test is a row of ARCHITECTURE.md's table."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ingestor.errors import Invalid
from tests.transport.library.service import Library


def answered(library: Library, method: str, url: str, body: str = "") -> Any:
    return json.loads(asyncio.run(library.call(method, url, body)))


def test_bodies_that_nobody_asked_for(library: Library) -> None:
    """a body where the rule has none is ignored"""
    with pytest.raises(Invalid, match="takes no body"):
        library.ask("DELETE", "/v1/books/x", '{"full":true}')
    for nothing in ("", "{}"):
        assert library.ask("DELETE", "/v1/books/x", nothing).name == "x"


def test_fields_that_are_bodies(library: Library) -> None:
    """`body` and `response_body` of any type"""
    assert library.ask("POST", "/v1/shelves/1/books", '{"title":"t"}').book.title == "t"
    assert answered(library, "GET", "/v1/books?pageSize=1")[0]["name"] == "0"
    assert answered(library, "POST", "/v1/books/x:tag", '["a","b"]') == ["a", "b"]
    assert answered(library, "POST", "/v1/books/x:tag") == []
    assert answered(library, "POST", "/v1/books/x:rate", "4") == 4
    assert answered(library, "POST", "/v1/books/x:rate") is None


def test_json(library: Library) -> None:
    """JSON: zeros and `[]` shown, int64 as strings, enums by name, read also by proto names and numbers"""
    said = answered(library, "POST", "/v1/everything", '{"int64_value":7,"genre":2,"uint32Value":"8"}')
    expected = {"int64Value": "7", "genre": "GENRE_POEM", "uint32Value": 8, "int32Value": 0, "strings": []}
    assert {name: said[name] for name in expected} == expected
    assert "child" not in said


def test_unknown_fields(library: Library) -> None:
    """unknown JSON fields are ignored (or an error, by an option)"""
    with pytest.raises(Invalid) as caught:
        library.ask("POST", "/v1/everything", '{"child":{"nope":1}}')
    assert [violation.field for violation in caught.value.violations] == ["child.nope"]


def test_nulls(library: Library) -> None:
    """JSON's `null` is an unset field"""
    unset = library.ask("POST", "/v1/everything", '{"optionalString":null,"child":null,"strings":null}')
    assert unset == library.api.Everything()
