"""What grpc-gateway does with paths, and what is done here: each test is a row of ARCHITECTURE.md's table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.api.http_pb2 import CustomHttpPattern, HttpRule

from ingestor.errors import Invalid, NoSuchRoute, WrongMethod
from ingestor.transport.transcoding import Router
from ingestor.transport.transcoding.paths import Paths
from ingestor.transport.transcoding.templates import Template, parsed
from tests.transport.library.service import Library


def value(template: str, path: str) -> dict[str, str] | None:
    """The variables of a path of this template; None when it is not."""
    paths: Paths[Template] = Paths()
    paths.add("GET", parsed(template), parsed(template))
    match = paths.find(("GET",), path)
    return None if match is None else {each.path: each.of(match.segments) for each in match.target.variables}


def routed(library: Library, *rules: tuple[str, HttpRule]) -> Router:
    """Routes of these rpcs alone, each by this rule."""
    return Router([replace(library.rpc(name), http=rule) for name, rule in rules], library.descriptors.pool)


def test_templates() -> None:
    """templates: literals, `*`, `{a.b}`, `{a=x/*}`, `{a=**}`, verbs"""
    assert value("/v1/x/*/{a.b}", "/v1/x/y/z") == {"a.b": "z"}
    assert value("/v1/{a=x/*}/y", "/v1/x/z/y") == {"a": "x/z"}
    assert value("/v1/{a=**}:go", "/v1/x/y:go") == {"a": "x/y"}
    assert value("/v1/x:go", "/v1/x") is None


def test_bindings(library: Library) -> None:
    """further bindings; GET, PUT, POST, DELETE, PATCH, custom"""
    book = {"name": "shelves/1/books/2"}
    assert library.ask("GET", "/v1/shelves/1/books/2") == library.api.GetBookRequest(**book)
    assert library.ask("GET", "/v1/books/2") == library.api.GetBookRequest(name="2")
    assert library.ask("DELETE", "/v1/books/2") == library.api.GetBookRequest(name="2")
    assert library.ask("PUT", "/v1/shelves/1/books/2", "{}").book == library.api.Book(**book)
    assert library.ask("PATCH", "/v1/shelves/1/books/2", "{}").book == library.api.Book(**book)
    assert library.ask("POST", "/v1/books/2:tag", '["a"]').tags == ["a"]
    assert library.ask("SEARCH", "/v1/find/2").name == "2"


def test_templates_that_http_proto_has_not(library: Library) -> None:
    """`**` before the end of a template; `/` alone"""
    for template in ("/v1/**/x", "/v1/{name=**}/x", "/"):
        with pytest.raises(ValueError, match="path template"):
            routed(library, ("GetBook", HttpRule(get=template)))


def test_the_most_particular_template_is_taken(library: Library) -> None:
    """of several templates for a path, the one registered last"""
    rules = [(name, HttpRule(get=f"/v1/{path}")) for name, path in _PARTICULAR.items()]
    for order in (rules, rules[::-1]):
        router = routed(library, *order)
        for path, name in (("/v1/x", "DeleteBook"), ("/v1/y", "GetBook"), ("/v1/y/z", "ReadFile")):
            assert router.match("GET", path).rpc.path.endswith(name)
    with pytest.raises(ValueError, match="is a route of"):
        routed(library, ("GetBook", HttpRule(get="/v1/{name}")), ("ReadFile", HttpRule(get="/v1/{path}")))


_PARTICULAR = {"GetBook": "{name}", "ReadFile": "{path=**}", "DeleteBook": "x"}


def test_colons(library: Library) -> None:
    """a colon before what is no registered verb is part of its segment"""
    assert library.ask("GET", "/v1/books/a:b").name == "a:b"
    assert library.ask("GET", "/v1/files/a/b:cooked").path == "a/b:cooked"


def test_verbs_of_other_methods(library: Library) -> None:
    """a verb that is registered for another HTTP method is part of the last segment"""
    with pytest.raises(WrongMethod) as caught:
        library.ask("DELETE", "/v1/books/x:tag")
    assert caught.value.allowed == ("OPTIONS", "POST")


def test_empty_segments(library: Library) -> None:
    """an empty segment is a value for `*`"""
    for path in ("/v1/books/", "/v1/shelves//books/2"):
        with pytest.raises(NoSuchRoute):
            library.router.match("GET", path)


def test_nothing_for_several() -> None:
    """no segment at all is a value for `**`"""
    assert value("/v1/{a=**}", "/v1") == {"a": ""}
    assert value("/v1/{a=o/**}", "/v1/o") == {"a": "o"}


def test_escapes() -> None:
    """escapes in variables are decoded by one of four rules, which an option picks"""
    assert value("/v1/{a}", "/v1/x%2Fy%20z") == {"a": "x/y z"}
    assert value("/v1/{a=**}", "/v1/x%2Fy%20z/w") == {"a": "x%2Fy z/w"}


def test_broken_escapes(library: Library) -> None:
    """a broken escape in a path is 400"""
    for path in ("/v1/books/%", "/v1/books/%zz", "/v1/books/%ff"):
        with pytest.raises(Invalid):
            library.router.match("GET", path)


def test_types_of_variables(library: Library) -> None:
    """variables of every scalar type, enums, times and wrappers"""
    fields = {
        "double_value": ("1.5", 1.5),
        "sint32_value": ("-2", -2),
        "fixed64_value": ("3", 3),
        "bool_value": ("true", True),
        "string_value": ("x", "x"),
        "bytes_value": ("-_8=", b"\xfb\xff"),
        "genre": ("2", 2),
        "int64_wrapper": ("4", 4),
    }
    for name, (text, expected) in fields.items():
        rule = HttpRule(get=f"/v1/{{{name}}}", additional_bindings=[HttpRule(get=f"/w/{{child.{name}}}")])
        library.router, whole = routed(library, ("Search", rule)), library.router
        try:
            assert getattr(library.ask("GET", f"/v1/{text}"), name) == expected
            assert getattr(library.ask("GET", f"/w/{text}").child, name) == expected
        finally:
            library.router = whole
    with pytest.raises(Invalid, match="int64_value"):
        library.ask("GET", "/v1/everything/x/true/1/2026-01-02T03:04:05Z")


def test_lists_in_paths(library: Library) -> None:
    """repeated and map fields in paths"""
    for template in ("/v1/{strings}", "/v1/{labels}"):
        with pytest.raises(ValueError, match="can't be a variable of a path"):
            routed(library, ("Search", HttpRule(get=template)))


def test_unknown_paths(library: Library) -> None:
    """an unknown path is 404 with code 5"""
    for path in ("/v1/nothing", "/", "/v1/books/x/y"):
        with pytest.raises(NoSuchRoute):
            library.router.match("GET", path)


def test_methods_that_a_path_has_not(library: Library) -> None:
    """a method that a path has not is 501 with code 12"""
    with pytest.raises(WrongMethod) as caught:
        library.router.match("PATCH", "/v1/books/x")
    assert caught.value.allowed == ("DELETE", "GET", "HEAD", "OPTIONS")
    every = HttpRule(custom=CustomHttpPattern(kind="*", path="/v1/x"))
    assert routed(library, ("GetBook", every)).match("PATCH", "/v1/x").rpc.http is every
