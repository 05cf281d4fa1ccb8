"""google.api.http rules end to end but for HTTP: what the method is given, what is answered, what is not served."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from google.api.http_pb2 import CustomHttpPattern, HttpRule

from ingestor.errors import Invalid, NoSuchRoute, WrongMethod
from ingestor.transport.http import Content, HttpServer, json_page
from ingestor.transport.transcoding import Router, bindings
from tests.transport.library.service import Library


def test_further_bindings_lead_to_the_same_method(library: Library) -> None:
    """With a variable of one segment or of several."""
    assert library.ask("GET", "/v1/shelves/a%2Fb/books/c%20d?full=true") == library.api.GetBookRequest(
        name="shelves/a%2Fb/books/c d", full=True
    )
    assert library.ask("GET", "/v1/books/a%2Fb") == library.api.GetBookRequest(name="a/b")


def test_without_a_body_all_is_in_path_and_query(library: Library) -> None:
    """Nested, repeated, and in maps; a body with something in it is refused, since its fields would be lost."""
    asked = library.ask("GET", "/v1/books?pageSize=2&filter.genre=1&filter.labels[a]=b&filter.pages.least=0")
    genre, range_ = library.api.Genre.NOVEL, library.api.Range(least=0)
    assert asked == library.api.ListBooksRequest(
        page_size=2, filter=library.api.Filter(genre=[genre], labels={"a": "b"}, pages=range_)
    )
    for nothing in ("", " \n", "{}"):
        assert library.ask("DELETE", "/v1/books/x", nothing) == library.api.GetBookRequest(name="x")
    with pytest.raises(Invalid, match="takes no body"):
        library.ask("DELETE", "/v1/books/x", '{"full":true}')


def test_a_field_may_be_the_body(library: Library) -> None:
    """The rest is in path and query."""
    asked = library.ask(
        "POST", "/v1/shelves/1/books?bookId=b&dry_run=true", '{"title":"t","pages":"3","genre":"GENRE_POEM"}'
    )
    book = library.api.Book(title="t", pages=3, genre=library.api.Genre.POEM)
    assert asked == library.api.CreateBookRequest(parent="shelves/1", book=book, book_id="b", dry_run=True)
    assert library.ask("POST", "/v1/shelves/1/books").book is None
    assert library.ask("POST", "/v1/shelves/1/books", "null").book is None
    assert library.ask("POST", "/v1/shelves/1/books", "{}").book == library.api.Book()


@pytest.mark.parametrize(
    ("url", "body", "said"),
    [
        ("?book.title=x", "{}", "book.title: is no parameter: this method takes it from the body"),
        ("?nope=x", "{}", "nope: is no field of CreateBookRequest"),
        ("", '{"nope":1}', "book.nope: is no field of Book"),
        ("", '{"tags":[1]}', "book.tags[0]: must be a string"),
        ("", '{"pages":1.5}', "book.pages: must be an integer from"),
        ("", "[1]", "book: must be a JSON object"),
        ("", "[]", "book: must be a JSON object"),
        ("", '""', "book: must be a JSON object"),
        ("", "{", "the body is not JSON"),
        ("", json.dumps({"tags": ["x"] * 101}), "book.tags: has too many elements, 100 at most"),
    ],
)
def test_what_is_wrong_within_a_body_that_is_a_field_is_named(
    library: Library, url: str, body: str, said: str
) -> None:
    """With the path from the request's message."""
    with pytest.raises(Invalid) as caught:
        library.ask("POST", "/v1/shelves/1/books" + url, body)
    assert caught.value.message.startswith(said)


def test_a_list_or_a_number_may_be_the_body(library: Library) -> None:
    """And the answer."""
    assert asyncio.run(library.call("POST", "/v1/books/x:tag", '["a","b"]')) == '["a","b"]'
    assert library.requests[-1] == library.api.TagBookRequest(name="x", tags=["a", "b"])
    assert asyncio.run(library.call("POST", "/v1/books/x:tag")) == "[]"
    assert asyncio.run(library.call("POST", "/v1/books/x:rate", "4")) == "4"
    assert asyncio.run(library.call("POST", "/v1/books/x:rate", '"0"')) == "0"
    assert asyncio.run(library.call("POST", "/v1/books/x:rate")) == "null"
    with pytest.raises(Invalid, match=r"^stars: "):
        library.ask("POST", "/v1/books/x:rate", "true")
    with pytest.raises(Invalid, match=r"^tags: "):
        library.ask("POST", "/v1/books/x:tag", "{}")


def test_a_field_may_be_the_answer(library: Library) -> None:
    """Zeros and empty lists in it shown, the rest left out."""
    answer = json.loads(asyncio.run(library.call("GET", "/v1/books?pageSize=1")))
    assert answer == [
        {"name": "0", "title": "", "tags": [], "genre": "GENRE_UNSPECIFIED", "labels": {}, "pages": "0"}
    ]
    assert asyncio.run(library.call("GET", "/v1/books:paged")) == '{"nextPageToken":"next","books":[]}'
    assert asyncio.run(library.call("POST", "/v1/shelves/1/books", '{"title":"t"}')) == '"t"'


def test_an_answer_without_fields_is_an_empty_object(library: Library) -> None:
    """google.protobuf.Empty is a message like others."""
    assert asyncio.run(library.call("DELETE", "/v1/books/x")) == "{}"


def test_the_path_wins_over_body_and_query(library: Library) -> None:
    """Whatever they say of the field."""
    here = "/v1/shelves/1/books/2"
    body = '{"name":"other","title":"t"}'
    expected = library.api.Book(name="shelves/1/books/2", title="t")
    mask = "?updateMask=title,pages&book.name=another"
    asked = library.ask("PATCH", here + mask, body)
    assert asked.book == expected
    assert asked.update_mask.paths == ["title", "pages"]
    assert library.ask("PUT", here, f'{{"book":{body}}}').book == expected
    assert library.ask("PATCH", here).book == library.api.Book(name="shelves/1/books/2")
    assert library.ask("GET", "/v1/books/x?name=y&name=z").name == "x"


def test_with_the_whole_body_there_are_no_parameters(library: Library) -> None:
    """Which grpc-gateway ignores: who gives one would not know that it was not heeded."""
    for method, url in (("PUT", "/v1/shelves/1/books/2?update_mask=a"), ("POST", "/v1/everything?genre=1")):
        with pytest.raises(Invalid, match="is no parameter: this method takes its fields from the body"):
            library.ask(method, url, "{}")


def test_variables_have_the_types_of_their_fields(library: Library) -> None:
    """Read as strictly as parameters."""
    asked = library.ask("GET", "/v1/everything/-5/true/GENRE_POEM/2026-01-02T03:04:05Z?stringValue=x")
    assert (asked.int64_value, asked.bool_value, asked.genre) == (-5, True, library.api.Genre.POEM)
    assert asked.child.time.isoformat() == "2026-01-02T03:04:05+00:00"
    assert asked.string_value == "x"
    for path, field in (("x/true/1/2026-01-02T03:04:05Z", "int64_value"), ("1/true/1/now", "child.time")):
        with pytest.raises(Invalid) as caught:
            library.ask("GET", f"/v1/everything/{path}")
        assert [violation.field for violation in caught.value.violations] == [field]


def test_the_rest_of_a_path(library: Library) -> None:
    """With its slashes, with or without a verb behind it, or with what comes before it."""
    assert library.ask("GET", "/v1/files/a//b%2F.txt").path == "a//b%2F.txt"
    assert library.ask("GET", "/v1/files").path == ""
    assert library.ask("GET", "/v1/files/a/b:raw").path == "a/b"
    assert library.ask("GET", "/v1/files/a/b:cooked").path == "a/b:cooked"
    assert library.ask("GET", "/v1/public/a").path == "public/a"


def test_methods_of_http(library: Library) -> None:
    """Those of custom rules, all at once with `*`, HEAD where there is GET; and what a path takes is told."""
    match, allowed = library.router.match, library.router.allowed
    assert library.ask("SEARCH", "/v1/find/x").name == "x"
    for method in ("GET", "POST", "BREW", "HEAD", "OPTIONS"):
        assert library.ask(method, "/v1/found/x").name == "x"
    assert match("HEAD", "/v1/books") is match("GET", "/v1/books")
    assert allowed("/v1/books") == ["GET", "HEAD", "OPTIONS"]
    assert allowed("/v1/books/x") == ["DELETE", "GET", "HEAD", "OPTIONS"]
    assert allowed("/v1/shelves/1/books/2") == ["GET", "HEAD", "OPTIONS", "PATCH", "PUT"]
    assert allowed("/v1/find/x") == ["OPTIONS", "SEARCH"]
    assert allowed("/v1/found/x") == ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
    with pytest.raises(WrongMethod) as caught:
        match("PATCH", "/v1/books/x")
    assert caught.value.allowed == ("DELETE", "GET", "HEAD", "OPTIONS")
    for path in ("/v1/nothing", "/v1/books/", "/", "", "*"):
        with pytest.raises(NoSuchRoute):
            match("GET", path)
    with pytest.raises(Invalid):
        match("GET", "/v1/books/%zz")


def test_what_has_no_rule_has_no_route(library: Library) -> None:
    """Such an rpc is served over gRPC alone."""
    assert library.rpc("GetShelf").http is None


def get(path: str, **rest: Any) -> HttpRule:
    return HttpRule(get=path, **rest)


@pytest.mark.parametrize(
    ("rpc", "rule", "said"),
    [
        ("GetBook", get("/v1/{nope}"), "nope is no field: GetBookRequest has no nope"),
        ("GetBook", get("/v1/{name.nope}"), "name is no field of GetBookRequest that has fields below it"),
        ("GetBook", get("/v1/{name"), "'/v1/{name' is no path template"),
        ("GetBook", get("/v1/{name=**}/x"), "** must be its last segment"),
        ("GetBook", get("/v1/{name}/{name}"), "has a variable twice"),
        ("GetBook", get(""), "no path template"),
        ("GetBook", HttpRule(custom=CustomHttpPattern(kind="get", path="/x")), "'get' is no HTTP method"),
        ("GetBook", HttpRule(custom=CustomHttpPattern(kind="FOO", path="/x")), "'FOO' is no HTTP method"),
        (
            "GetBook",
            HttpRule(custom=CustomHttpPattern(kind="CONNECT", path="/x")),
            "'CONNECT' is no HTTP method",
        ),
        ("GetBook", get("/v1/%ff"), "'%ff' can't be in a path template: %ff is not UTF-8"),
        (
            "Search",
            get("/x/{text_choice}/{range_choice.least}"),
            "text_choice and range_choice are of one oneof",
        ),
        (
            "Search",
            get("/x/{child.text_choice}/{child.range_choice.most}"),
            "are of one oneof, of which one can",
        ),
        (
            "Search",
            HttpRule(post="/x/{text_choice}", body="range_choice"),
            "are of one oneof, of which one can",
        ),
        ("GetBook", get("/x", additional_bindings=[HttpRule(body="*")]), "it has no path"),
        (
            "GetBook",
            get("/x", additional_bindings=[get("/y", additional_bindings=[get("/z")])]),
            "must not have some of their own",
        ),
        ("GetBook", get("/x", additional_bindings=[get("/{nope}")]), "has no nope"),
        (
            "GetBook",
            get("/x", additional_bindings=[get("/x")]),
            "is a route of /library.v1.LibraryService/GetBook",
        ),
        ("GetBook", get("/x", response_body="nope"), "its response_body, nope, is no field of Book"),
        ("CreateBook", HttpRule(post="/x", body="nope"), "its body, nope, is no field of CreateBookRequest"),
        ("CreateBook", HttpRule(post="/x", body="book.title"), "its body, book.title, is no field"),
        ("CreateBook", HttpRule(post="/x/{parent}", body="parent"), "is both the body and a variable"),
        ("CreateBook", HttpRule(post="/x/{book}", body="*"), "book can't be a variable of a path"),
        ("TagBook", HttpRule(post="/x/{tags}", body="*"), "tags can't be a variable of a path"),
        ("Search", get("/x/{labels}"), "labels can't be a variable of a path"),
        ("Search", get("/x/{struct}"), "struct can't be a variable of a path"),
        ("Search", get("/x/{labels.key}"), "labels is no field of Everything that has fields below it"),
        ("Search", get("/x/{more.genre}"), "more is no field of Everything that has fields below it"),
        ("Search", get("/x/{time.seconds}"), "time is no field of Everything that has fields below it"),
        ("Search", get("/x/{calledOtherwise}"), "has no calledOtherwise"),
    ],
)
def test_what_cannot_be_served_is_refused_at_start(
    library: Library, rpc: str, rule: HttpRule, said: str
) -> None:
    """With the rpc's name and the reason."""
    with pytest.raises(ValueError, match="google.api.http") as caught:
        Router([replace(library.rpc(rpc), http=rule)], library.descriptors.pool)
    assert str(caught.value).startswith(f"/library.v1.LibraryService/{rpc}: ")
    assert said in str(caught.value)


def test_two_rpcs_with_one_route_are_refused(library: Library) -> None:
    """Also where their variables have other names; with other methods or verbs they are two routes."""
    first = replace(library.rpc("GetBook"), http=get("/v1/x/{name}"))
    second = library.rpc("Search")
    for path in ("/v1/x/{string_value}", "/v1/x/*"):
        with pytest.raises(
            ValueError, match=r"Search: .*GET .* is a route of /library.v1.LibraryService/GetBook"
        ):
            Router([first, replace(second, http=get(path))], library.descriptors.pool)
    others = [HttpRule(post="/v1/x/{string_value}"), get("/v1/x/{string_value}:go"), get("/v1/x/y")]
    others.append(HttpRule(custom=CustomHttpPattern(kind="*", path="/v1/x/*")))
    for rule in others:
        Router([first, replace(second, http=rule)], library.descriptors.pool)


@pytest.mark.parametrize(
    "rule", [get("/v1/here"), HttpRule(post="/v1/{name=here}", body="*"), get("/v1/%68ere")]
)
async def test_a_route_where_a_page_is_is_refused_at_start(library: Library, rule: HttpRule) -> None:
    """The page would be found for every method. One whose variable could be a page is none of these: a literal
    goes before it."""

    async def page() -> Content:
        return json_page(200, {})

    router = Router([replace(library.rpc("GetBook"), http=rule)], library.descriptors.pool)
    with pytest.raises(ValueError, match="LibraryService/GetBook: .* is a page here"):
        HttpServer(router, {"/v1/here": page}, body_bytes_max=1000)
    free = Router([replace(library.rpc("GetBook"), http=get("/v1/{name}"))], library.descriptors.pool)
    HttpServer(free, {"/v1/here": page}, body_bytes_max=1000)


async def test_every_method_that_a_rule_may_have_is_served(library: Library) -> None:
    """HTTP's parser lets it through. One that it doesn't know is 400, and no rule may have it."""
    kinds = sorted(bindings._KINDS - {"*"})
    rules = [HttpRule(custom=CustomHttpPattern(kind=kind, path="/v1/x/{name}")) for kind in kinds]
    rules[0].additional_bindings.extend(rules[1:])
    router = Router([replace(library.rpc("GetBook"), http=rules[0])], library.descriptors.pool)
    server = HttpServer(router, {}, body_bytes_max=1000)
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            for kind in kinds:
                async with session.request(kind, f"http://127.0.0.1:{port}/v1/x/{kind}") as got:
                    assert got.status == 200, kind
            async with session.request("FOO", f"http://127.0.0.1:{port}/v1/x/foo") as got:
                assert got.status == 400
    finally:
        await server.close()
    assert [each.name for each in library.requests] == kinds
