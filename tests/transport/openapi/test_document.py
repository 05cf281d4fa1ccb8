"""The document says of a rich API what its rules and types are."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from ingestor.transport.status import INTERNAL, TABLE
from ingestor.transport.transcoding.openapi import Info, describe
from tests.transport.openapi.library import descriptors, document

LIBRARY = document()
PATHS = LIBRARY["paths"]
SCHEMAS = LIBRARY["components"]["schemas"]


def parameters(path: str, method: str = "get") -> dict[str, dict[str, Any]]:
    """An operation's parameters by name."""
    return {each["name"]: each for each in PATHS[path][method].get("parameters", [])}


def body(path: str, method: str = "post") -> dict[str, Any]:
    """An operation's request body, by media type."""
    content: dict[str, Any] = PATHS[path][method]["requestBody"]["content"]
    return content


def test_it_is_valid() -> None:
    """By OpenAPI 3.1's own schema."""
    OpenAPIV31SpecValidator(LIBRARY).validate()


def test_it_has_an_operation_for_each_binding() -> None:
    """Also for additional ones and custom methods; none without a rule, and none that isn't served."""
    found = {
        (method, path): each["operationId"] for path, item in PATHS.items() for method, each in item.items()
    }
    assert found == {
        ("get", "/v1/shelves/{name_1}/books/{name_2}"): "Library_GetBook",
        ("get", "/v1/books/{isbn}:isbn"): "Library_GetBook_2",
        ("get", "/v1/names/{name}"): "Library_GetBook_3",
        ("patch", "/v1/names/{name}"): "Library_UpdateBook",  # as GET spells it, not as book.name
        ("post", "/v1/books/{reason}:borrow"): "Library_Borrow",
        ("get", "/v1/books"): "Library_Search",
        ("get", "/v1/{wildcard_1}/files/{path}"): "Library_ReadFile",
        ("put", "/v1/everything"): "Library_Put",
        ("get", "/v1/shelves/{name}:watch"): "Library_Watch",
        ("post", "/v1/books:import"): "Library_Import",
        ("head", "/v1/books"): "Library_Probe",
    }


def test_comments_become_descriptions() -> None:
    """The first sentence is the summary; lines are joined but those of lists."""
    operation = PATHS["/v1/names/{name}"]["get"]
    assert operation["summary"] == "GetBook finds a book"
    assert operation["description"] == "GetBook finds a book. It is never damaged.\n\nA second paragraph."
    [tag] = LIBRARY["tags"]
    assert tag == {
        "name": "Library",
        "description": "Library lends books.\n\nIt has:\n- shelves, and\n- books\n  of many pages.",
    }
    assert SCHEMAS["library.v1.Book.Binding"] == {
        "type": "string",
        "title": "Binding",
        "description": "How books are bound.\n\n- `BINDING_HARD`: With hard covers.",
        "enum": ["BINDING_UNSPECIFIED", "BINDING_HARD"],
    }
    assert LIBRARY["info"]["description"].startswith("Lends books.\n")


def test_path_variables_become_parameters() -> None:
    """One for each wildcard; `**` is described, and a variable's type is its field's."""
    both = parameters("/v1/shelves/{name_1}/books/{name_2}")
    assert [each for each in both if both[each]["in"] == "path"] == ["name_1", "name_2"]
    assert "`shelves/*/books/*`" in both["name_2"]["description"]
    assert parameters("/v1/books/{isbn}:isbn")["isbn"]["schema"]["format"] == "int64"
    files = parameters("/v1/{wildcard_1}/files/{path}")
    assert "Any number of segments" in files["path"]["description"]
    assert all(files[name]["required"] for name in ("path", "wildcard_1"))


def test_fields_in_neither_path_nor_body_become_query_parameters() -> None:
    """Nested ones with dots, lists repeated, maps as deep objects; what no query can hold is left out, and so is
    what a message that holds itself would go on with."""
    assert list(parameters("/v1/names/{name}", "patch")) == ["name", "updateMask", "reason"]
    found = parameters("/v1/books")
    assert {name: each["schema"].get("type") for name, each in found.items()} == {
        "like.name": "string",
        "like.authors": "array",
        "like.binding": None,
        "like.freeDays": "integer",
        "like.price": None,
        "shelfIds": "array",
        "labels": "object",
        "since": "string",
        "pages": ["string", "integer"],
    }
    assert found["like.authors"]["explode"] is True
    assert found["labels"]["style"] == "deepObject"
    assert "`labels[key]=value`" in found["labels"]["description"]
    assert "At most one of it and `price`" in found["like.freeDays"]["description"]


def test_bodies_are_what_the_rule_says() -> None:
    """A field, the whole message, or what the path leaves of it."""
    book = {"$ref": "#/components/schemas/library.v1.Book.Input"}
    assert body("/v1/names/{name}", "patch")["application/json"]["schema"] == {
        **book,
        "description": "The new book.",
    }
    rest = body("/v1/books/{reason}:borrow")["application/json"]["schema"]
    assert list(rest["properties"]) == ["book", "updateMask"]
    assert rest["additionalProperties"] is False
    assert body("/v1/everything", "put")["application/json"]["schema"]["$ref"].endswith("Everything.Input")
    assert "requestBody" not in PATHS["/v1/books"]["get"]
    answered = PATHS["/v1/books/{reason}:borrow"]["post"]["responses"]["200"]["content"]
    assert answered["application/json"]["schema"]["type"] == "array"


def test_streams_are_lines() -> None:
    """Of results, and of one error at their end."""
    answered = PATHS["/v1/shelves/{name}:watch"]["get"]["responses"]["200"]
    assert '`{"error": ...}`' in answered["description"]
    result, error = answered["content"]["application/x-ndjson"]["schema"]["oneOf"]
    assert result["properties"] == {"result": {"$ref": "#/components/schemas/library.v1.Book.Output"}}
    assert error["properties"] == {"error": {"$ref": "#/components/schemas/google.rpc.Status"}}
    assert list(body("/v1/books:import")) == ["application/x-ndjson"]


@pytest.mark.parametrize(
    ("field", "sent", "answered"),
    [
        ("anInt64", {"type": ["string", "integer"], "format": "int64"}, {"type": "string"}),
        ("aUint32", {"maximum": 2**32 - 1, "minimum": 0}, {"type": "integer"}),
        ("someBytes", {"contentEncoding": "base64"}, {"contentEncoding": "base64"}),
        ("aTime", {"format": "date-time"}, {"format": "date-time"}),
        ("aWrappedInt64", {"type": ["string", "integer", "null"]}, {"type": ["string", "null"]}),
        ("aNull", {"type": "null"}, {"type": "null"}),
        ("aValue", {}, {}),
        ("byBool", {"propertyNames": {"enum": ["true", "false"]}}, {"type": "object"}),
        ("byUint", {"additionalProperties": {"type": "string"}}, {"type": "object"}),
    ],
)
def test_types_are_those_of_proto3_json(field: str, sent: dict[str, Any], answered: dict[str, Any]) -> None:
    """As they are best sent, and as they are answered."""
    assert sent.items() <= SCHEMAS["library.v1.Everything.Input"]["properties"][field].items()
    assert answered.items() <= SCHEMAS["library.v1.Everything.Output"]["properties"][field].items()


def test_answers_show_what_has_no_presence() -> None:
    """Clients can count on it; what has presence may be missing."""
    required = SCHEMAS["library.v1.Book.Output"]["required"]
    assert required == ["name", "authors", "binding"]
    assert "required" not in SCHEMAS["library.v1.Book.Input"]
    assert SCHEMAS["library.v1.Book.Input"]["additionalProperties"] is False


def test_every_error_of_the_table_is_described() -> None:
    """With its codes, its details and the headers that go with it; and there is one for all others."""
    responses = LIBRARY["components"]["responses"]
    statuses = {str(answer.http) for answer in [*TABLE.values(), INTERNAL]}
    assert set(responses) == statuses | {"default"}
    assert responses["400"]["description"] == (
        "Bad Request: `code` is INVALID_ARGUMENT (3) or FAILED_PRECONDITION (9)."
    )
    assert [status for status in responses if "Retry-After" in responses[status].get("headers", {})] == [
        "429",
        "503",
    ]
    assert list(responses["405"]["headers"]) == ["Allow"]
    details = SCHEMAS["google.rpc.Status"]["properties"]["details"]["items"]["oneOf"]
    assert [detail["$ref"].rpartition(".")[2] for detail in details] == ["BadRequest", "RetryInfo"]
    assert set(PATHS["/v1/books"]["get"]["responses"]) == {"200", *responses}


def test_two_methods_at_one_place_are_refused() -> None:
    """One of them would be missing without a word."""
    made = descriptors()
    files = [type(file).FromString(file.SerializeToString()) for file in made.files.values()]
    [service] = [service for file in files for service in file.service]
    service.method[-2].options.CopyFrom(service.method[3].options)  # Hidden where Search is
    paths = {f"/library.v1.Library/{name}" for name in ("Search", "Hidden")}
    with pytest.raises(ValueError, match="get /v1/books is there twice"):
        describe(files, made.pool, paths, Info("Library", "1"))
