"""Path templates: their grammar, which one a path is of, and what its variables then are."""

from __future__ import annotations

import string
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.errors import Invalid
from ingestor.transport.transcoding.paths import Paths
from ingestor.transport.transcoding.templates import Template, Wild, parsed


def paths_of(*texts: str) -> Paths[Template]:
    paths: Paths[Template] = Paths()
    for text in texts:
        template = parsed(text)
        assert paths.add("GET", template, template) is template
    return paths


def found(paths: Paths[Template], path: str) -> tuple[str, dict[str, str]] | None:
    """The template that the path is of, with the values of its variables."""
    match = paths.find(("GET",), path)
    if match is None:
        return None
    return match.target.text, {each.path: each.of(match.segments) for each in match.target.variables}


def test_a_template_is_taken_apart() -> None:
    """Segments, variables with what they stand for, and the verb."""
    template = parsed("/v1/{a.b=x/*}/*/{c}/{d=**}:do.it")
    assert template.segments == ("v1", "x", Wild.ONE, Wild.ONE, Wild.ONE, Wild.REST)
    assert template.verb == "do.it"
    assert [(each.path, each.first, each.count, each.single) for each in template.variables] == [
        ("a.b", 1, 2, False),
        ("c", 4, 1, True),
        ("d", 5, None, False),
    ]
    assert parsed("/{a=**}").variables[0].single is False
    assert parsed("/{a=x}").variables[0].single is True
    assert parsed("/a%2Fb").segments == ("a/b",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "v1/a",
        "/v1/",
        "/v1//a",
        "/v1/a:",
        "/v1/a:b:c",
        "/v1/a:b/c",
        "/v1/a:{b}",
        "/v1/{}",
        "/v1/{a",
        "/v1/a}",
        "/v1/{a=}",
        "/v1/{a=/b}",
        "/v1/{a={b}}",
        "/v1/{a=b/{c}}",
        "/v1/{1a}",
        "/v1/{a..b}",
        "/v1/{a.}",
        "/v1/x{a}",
        "/v1/{a}x",
        "/v1/***",
        "/v1/a*",
        "/v1/**/a",
        "/v1/{a=**}/b",
        "/v1/{a=**/b}",
        "/v1/a b",
        "/v1/a?b",
        "/v1/%zz",
        "/v1/ü",
        "/v1/{a}/{a}",
        "/v1/a\n",
    ],
)
def test_what_is_no_template_is_refused(text: str) -> None:
    """With the text in the message, so that it can be found."""
    with pytest.raises(ValueError, match="template|twice") as caught:
        parsed(text)
    assert repr(text) in str(caught.value)


def test_a_literal_goes_before_one_segment_before_the_rest() -> None:
    """Segment by segment, from the left, in whatever order the templates came."""
    texts = ["/v1/{a=**}", "/v1/{a}", "/v1/x", "/v1/{a}/y", "/v1/x/{b}", "/v1/x/{b=**}", "/{a}/x/y"]
    for order in (texts, texts[::-1]):
        paths = paths_of(*order)
        assert found(paths, "/v1/x") == ("/v1/x", {})
        assert found(paths, "/v1/z") == ("/v1/{a}", {"a": "z"})
        assert found(paths, "/v1/x/y") == ("/v1/x/{b}", {"b": "y"})
        assert found(paths, "/v1/z/y") == ("/v1/{a}/y", {"a": "z"})
        assert found(paths, "/v1/x/y/z") == ("/v1/x/{b=**}", {"b": "y/z"})
        assert found(paths, "/v1/z/z") == ("/v1/{a=**}", {"a": "z/z"})
        assert found(paths, "/v2/x/y") == ("/{a}/x/y", {"a": "v2"})
        assert found(paths, "/v2/x") is None


def test_a_way_that_leads_nowhere_is_left_again() -> None:
    """A literal that fits is no promise that the rest does."""
    paths = paths_of("/a/b/c", "/{x}/b/d", "/a/{y}/e", "/{z=**}")
    assert found(paths, "/a/b/d") == ("/{x}/b/d", {"x": "a"})
    assert found(paths, "/a/b/e") == ("/a/{y}/e", {"y": "b"})
    assert found(paths, "/a/b/f") == ("/{z=**}", {"z": "a/b/f"})


def test_only_a_registered_verb_is_cut_off() -> None:
    """All other colons belong to their segments, and so does one that is written as an escape."""
    paths = paths_of("/v1/{a}", "/v1/{a}:go", "/v1/{a=**}:go", "/v1/x:go", "/v1/x/{b}")
    assert found(paths, "/v1/y:go") == ("/v1/{a}:go", {"a": "y"})
    assert found(paths, "/v1/x:go") == ("/v1/x:go", {})
    assert found(paths, "/v1/y:stop") == ("/v1/{a}", {"a": "y:stop"})
    assert found(paths, "/v1/y:go:stop") == ("/v1/{a}", {"a": "y:go:stop"})
    assert found(paths, "/v1/y:stop:go") == ("/v1/{a}:go", {"a": "y:stop"})
    assert found(paths, "/v1/y%3Ago") == ("/v1/{a}", {"a": "y:go"})
    assert found(paths, "/v1/x/y:go") == ("/v1/{a=**}:go", {"a": "x/y"})
    assert found(paths, "/v1/y:go/z") is None
    assert found(paths_of("/v1/{a}:go"), "/v1/y") is None
    assert found(paths_of("/v1/{a}"), "/v1/y:go") == ("/v1/{a}", {"a": "y:go"})


def test_a_verb_of_another_method_is_a_verb_too() -> None:
    """DELETE of /x:go must not delete what is called x:go; segments are compared for each method by itself."""
    paths: Paths[str] = Paths()
    for method, text in (("DELETE", "/{a}"), ("POST", "/{a}:go"), ("GET", "/x"), ("GET", "/{a=**}")):
        paths.add(method, parsed(text), f"{method} {text}")
    assert paths.find(("DELETE",), "/x:go") is None
    assert paths.methods("/x:go") == {"POST"}
    for methods, path, expected in (
        (("DELETE",), "/x:stop", "DELETE /{a}"),
        (("DELETE",), "/x", "DELETE /{a}"),
        (("HEAD", "GET"), "/x", "GET /x"),
        (("GET",), "/x/y:go", "GET /{a=**}"),
    ):
        match = paths.find(methods, path)
        assert match is not None
        assert match.target == expected
    assert paths.methods("/x") == {"DELETE", "GET"}
    assert paths.methods("x") == set()


def test_the_rest_may_be_nothing_and_one_segment_may_not() -> None:
    """`**` is zero or more segments; `*` is one with something in it."""
    rest, one = paths_of("/v1/{a=**}"), paths_of("/v1/{a}")
    assert found(rest, "/v1") == found(rest, "/v1/") == ("/v1/{a=**}", {"a": ""})
    assert found(rest, "/v1//x/") == ("/v1/{a=**}", {"a": "/x/"})
    assert found(one, "/v1") is None
    assert found(one, "/v1/") is None
    assert found(one, "/v1/x/") is None
    assert found(paths_of("/v1/{a=x/**}"), "/v1/x") == ("/v1/{a=x/**}", {"a": "x"})
    assert found(rest, "v1/x") is None
    assert found(rest, "") is None


def test_escapes_in_one_segment_are_all_decoded() -> None:
    """And in several all but the slash, which would look like one that separates."""
    path = "/v1/a%2Fb%2fc%20%C3%BC%25"
    assert found(paths_of("/v1/{a}"), path) == ("/v1/{a}", {"a": "a/b/c ü%"})
    assert found(paths_of("/{a=v1/*}"), path) == ("/{a=v1/*}", {"a": "v1/a%2Fb%2fc ü%"})
    assert found(paths_of("/v1/{a=**}"), path + "/+") == ("/v1/{a=**}", {"a": "a%2Fb%2fc ü%/+"})


def test_literals_are_the_same_however_they_are_written() -> None:
    """A client may escape what it need not."""
    paths = paths_of("/v1/a%20b", "/v1/c")
    assert found(paths, "/%761/a%20b") == ("/v1/a%20b", {})
    assert found(paths, "/v1/%63") == ("/v1/c", {})
    assert found(paths, "/v1%2Fc") is None


@pytest.mark.parametrize("path", ["/v1/%", "/v1/%2", "/v1/%zz", "/%C3/x", "/v1/%ff", "/v1/\udcff"])
def test_a_broken_escape_is_invalid(path: str) -> None:
    """Also what decodes to no UTF-8, or came as such."""
    with pytest.raises(Invalid, match="escape|UTF-8"):
        found(paths_of("/v1/{a}", "/{a}/x"), path)


def test_templates_alike_are_found_when_they_are_added() -> None:
    """Alike are those that no path could tell apart, whatever their variables are called."""
    paths = paths_of("/v1/{a}/x", "/v1/{a=**}", "/v1/{a}/x:go")
    for text, there in (("/v1/{b=*}/%78", "/v1/{a}/x"), ("/v1/**", "/v1/{a=**}")):
        assert paths.add("GET", parsed(text), parsed(text)).text == there


def test_no_path_takes_long() -> None:
    """Templates that fork at every segment, and a path that fits all of them but for its end."""
    depth = 10
    texts = {
        "/" + "/".join("a" if bits >> at & 1 else "*" for at in range(depth)) + "/end"
        for bits in range(2**depth)
    }
    paths = paths_of(*sorted(texts), "/{rest=**}:go")
    begun = time.perf_counter()
    for path in ("/a" * depth + "/other", "/a" * 4000, "/" + ":go" * 3000, "/" + "%61" * 2700, "/" * 8000):
        found(paths, path)
    assert time.perf_counter() - begun < 1


_literal = st.text(string.ascii_lowercase, min_size=1, max_size=3)
_value = st.text(min_size=1, max_size=8)


@given(st.data())
def test_what_is_expanded_into_a_path_comes_back(data: st.DataObject) -> None:
    """Client libraries escape all but -_.~ and letters and digits (and slashes, in several segments)."""
    pieces, path, expected = [], "", {}
    for number in range(data.draw(st.integers(1, 4))):
        name, kind = f"f{number}", data.draw(st.sampled_from(["literal", "one", "several"]))
        if kind == "literal":
            literal = data.draw(_literal)
            pieces.append(literal)
            path += f"/{literal}"
        elif kind == "one":
            pieces.append(f"{{{name}}}")
            expected[name] = data.draw(_value)
            path += "/" + quote(expected[name], safe="-_.~")
        else:
            prefix, end = data.draw(_literal), data.draw(_value.filter(lambda text: "/" not in text))
            pieces.append(f"{{{name}={prefix}/*}}")
            expected[name] = f"{prefix}/{end}"
            path += "/" + quote(expected[name], safe="-_.~/")
    if data.draw(st.booleans()):
        pieces.append("{rest=**}")
        expected["rest"] = data.draw(st.text(max_size=8))
        path += "/" + quote(expected["rest"], safe="-_.~/")
    verb = data.draw(st.sampled_from(["", ":go"]))
    text = "/" + "/".join(pieces) + verb
    assert found(paths_of(text), path + verb) == (text, expected)
