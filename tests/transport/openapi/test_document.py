"""The document says of a rich API what its rules and types are."""

from __future__ import annotations

from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from openapi_spec_validator import OpenAPIV31SpecValidator

from ingestor.transport.rpc import Descriptors
from ingestor.transport.status import INTERNAL, TABLE
from ingestor.transport.transcoding.openapi import Info, describe
from tests.transport.library.service import Library

Document = dict[str, Any]
EVERYTHING = "library.v1.Everything"


@pytest.fixture
def paths(document: Document) -> Document:
    made: Document = document["paths"]
    return made


@pytest.fixture
def schemas(document: Document) -> Document:
    made: Document = document["components"]["schemas"]
    return made


def parameters(operation: Document) -> dict[str, Document]:
    """An operation's parameters by name."""
    return {each["name"]: each for each in operation.get("parameters", [])}


def body(operation: Document) -> Document:
    """An operation's request body, by media type."""
    content: Document = operation["requestBody"]["content"]
    return content


def test_it_is_valid(document: Document) -> None:
    """By OpenAPI 3.1's own schema."""
    OpenAPIV31SpecValidator(document).validate()


def test_it_has_an_operation_for_each_binding(paths: Document) -> None:
    """Also for additional ones and a custom HEAD; none without a rule, none of a method of HTTP that OpenAPI has
    not, and none that isn't served."""
    found = {
        (method, path): each["operationId"].removeprefix("LibraryService_")
        for path, item in paths.items()
        for method, each in item.items()
    }
    assert found == {
        ("get", "/v1/shelves/{name_1}/books/{name_2}"): "GetBook",
        ("get", "/v1/books/{name}"): "GetBook_2",
        ("get", "/v1/books"): "ListBooks",
        ("get", "/v1/books:paged"): "ListBooks_2",
        ("post", "/v1/shelves/{parent}/books"): "CreateBook",
        # As GET spells it, not as book.name.
        ("patch", "/v1/shelves/{name_1}/books/{name_2}"): "UpdateBook",
        ("put", "/v1/shelves/{name_1}/books/{name_2}"): "UpdateBook_2",
        ("delete", "/v1/books/{name}"): "DeleteBook",
        ("post", "/v1/books/{name}:tag"): "TagBook",
        ("put", "/v1/books/{name}:retag"): "TagBook_2",
        ("get", "/v1/files/{path}"): "ReadFile",
        ("get", "/v1/files/{path}:raw"): "ReadFile_2",
        ("get", "/v1/public/{path}"): "ReadFile_3",
        ("get", "/v1/{wildcard_1}/files/{path}"): "ReadFile_4",
        ("get", "/v1/everything"): "Search",
        ("post", "/v1/everything"): "Search_2",
        ("get", "/v1/everything/{int64Value}/{boolValue}/{genre}/{child.time}"): "Search_3",
        ("head", "/v1/probe"): "Probe",
        ("get", "/v1/shelves/{name}:watch"): "WatchShelf",
        ("post", "/v1/books:import"): "ImportBooks",
    }


def test_comments_become_descriptions(document: Document, paths: Document, schemas: Document) -> None:
    """The first sentence is the summary; lines are joined but those of lists."""
    operation = paths["/v1/books/{name}"]["get"]
    assert operation["summary"] == "GetBook finds a book"
    assert operation["description"] == (
        "GetBook finds a book. It is never damaged.\n\nBy a variable of several segments, or one of one."
    )
    [tag] = document["tags"]
    assert tag == {
        "name": "LibraryService",
        "description": "LibraryService lends books.\n\nIt has:\n- shelves, and\n- books\n  of many pages.",
    }
    assert schemas["library.v1.Genre"] == {
        "type": "string",
        "title": "Genre",
        "description": "What kind of book it is.\n\n- `GENRE_NOVEL`: With a plot.",
        "enum": ["GENRE_UNSPECIFIED", "GENRE_NOVEL", "GENRE_POEM"],
    }
    assert document["info"]["description"].startswith("Lends books.\n")


def test_path_variables_become_parameters(paths: Document) -> None:
    """One for each wildcard; `**` is described, and a variable's type is its field's."""
    both = parameters(paths["/v1/shelves/{name_1}/books/{name_2}"]["get"])
    assert [each for each in both if both[each]["in"] == "path"] == ["name_1", "name_2"]
    assert "`shelves/*/books/*`" in both["name_2"]["description"]
    typed = parameters(paths["/v1/everything/{int64Value}/{boolValue}/{genre}/{child.time}"]["get"])
    assert typed["int64Value"]["schema"]["format"] == "int64"
    files = parameters(paths["/v1/{wildcard_1}/files/{path}"]["get"])
    assert "Any number of segments" in files["path"]["description"]
    assert all(files[name]["required"] for name in ("path", "wildcard_1"))


def test_fields_in_neither_path_nor_body_become_query_parameters(paths: Document) -> None:
    """Nested ones with dots, lists repeated, maps as deep objects; what no query can hold is left out, and so is
    what a message that holds itself would go on with."""
    assert list(parameters(paths["/v1/shelves/{parent}/books"]["post"])) == ["parent", "bookId", "dryRun"]
    found = parameters(paths["/v1/books"]["get"])
    assert {name: each["schema"].get("type") for name, each in found.items()} == {
        "pageSize": "integer",
        "pageToken": "string",
        "filter.genre": "array",
        "filter.labels": "object",
        "filter.since": "string",
        "filter.pages.least": "integer",
        "filter.pages.most": "integer",
        "filter.like.name": "string",
        "filter.like.title": "string",
        "filter.like.tags": "array",
        "filter.like.genre": None,
        "filter.like.labels": "object",
        "filter.like.pages": ["string", "integer"],
        "filter.like.freeDays": "integer",
        "filter.like.price": None,
        "filter.shelf": ["string", "integer"],
    }
    assert found["filter.like.tags"]["explode"] is True
    assert found["filter.labels"]["style"] == "deepObject"
    assert "`filter.labels[key]=value`" in found["filter.labels"]["description"]
    assert "At most one of it and `price`" in found["filter.like.freeDays"]["description"]


def test_bodies_are_what_the_rule_says(paths: Document) -> None:
    """A field, the whole message, or what the path leaves of it."""
    book = {"$ref": "#/components/schemas/library.v1.Book.Input"}
    create = paths["/v1/shelves/{parent}/books"]["post"]
    assert body(create)["application/json"]["schema"] == {**book, "description": "The new book."}
    rest = body(paths["/v1/books/{name}:retag"]["put"])["application/json"]["schema"]
    assert list(rest["properties"]) == ["tags"]
    assert rest["additionalProperties"] is False
    whole = body(paths["/v1/everything"]["post"])["application/json"]["schema"]
    assert whole["$ref"].endswith("Everything.Input")
    assert "requestBody" not in paths["/v1/books"]["get"]
    answered = paths["/v1/books"]["get"]["responses"]["200"]["content"]
    assert answered["application/json"]["schema"]["type"] == "array"


def test_streams_are_lines(paths: Document) -> None:
    """Of results, and of one error at their end."""
    answered = paths["/v1/shelves/{name}:watch"]["get"]["responses"]["200"]
    assert '`{"error": ...}`' in answered["description"]
    result, error = answered["content"]["application/x-ndjson"]["schema"]["oneOf"]
    assert result["properties"] == {"result": {"$ref": "#/components/schemas/library.v1.Book.Output"}}
    assert error["properties"] == {"error": {"$ref": "#/components/schemas/google.rpc.Status"}}
    assert list(body(paths["/v1/books:import"]["post"])) == ["application/x-ndjson"]


@pytest.mark.parametrize(
    ("field", "sent", "answered"),
    [
        ("sint64Value", {"type": ["string", "integer"], "format": "int64"}, {"type": "string"}),
        ("uint32Value", {"maximum": 2**32 - 1, "minimum": 0}, {"type": "integer"}),
        ("bytesValue", {"contentEncoding": "base64"}, {"contentEncoding": "base64"}),
        ("time", {"format": "date-time"}, {"format": "date-time"}),
        ("int64Wrapper", {"type": ["string", "integer", "null"]}, {"type": ["string", "null"]}),
        ("nothing", {"type": "null"}, {"type": "null"}),
        ("value", {}, {}),
        ("byBool", {"propertyNames": {"enum": ["true", "false"]}}, {"type": "object"}),
        ("wrappers", {"additionalProperties": {"type": "string"}}, {"type": "object"}),
    ],
)
def test_types_are_those_of_proto3_json(
    schemas: Document, field: str, sent: Document, answered: Document
) -> None:
    """As they are best sent, and as they are answered."""
    assert sent.items() <= schemas[f"{EVERYTHING}.Input"]["properties"][field].items()
    assert answered.items() <= schemas[f"{EVERYTHING}.Output"]["properties"][field].items()


def test_answers_show_what_has_no_presence(schemas: Document) -> None:
    """Clients can count on it; what has presence may be missing."""
    required = schemas["library.v1.Book.Output"]["required"]
    assert required == ["name", "title", "tags", "genre", "labels", "pages"]
    assert "required" not in schemas["library.v1.Book.Input"]
    assert schemas["library.v1.Book.Input"]["additionalProperties"] is False


def test_every_error_of_the_table_is_described(document: Document, schemas: Document) -> None:
    """With its codes, its details and the headers that go with it; and there is one for all others."""
    responses = document["components"]["responses"]
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
    details = schemas["google.rpc.Status"]["properties"]["details"]["items"]["oneOf"]
    assert [detail["$ref"].rpartition(".")[2] for detail in details] == ["BadRequest", "RetryInfo"]
    assert set(document["paths"]["/v1/books"]["get"]["responses"]) == {"200", *responses}


def test_two_methods_at_one_place_are_refused(library: Library) -> None:
    """One of them would be missing without a word."""
    made = library.descriptors
    files = [type(file).FromString(file.SerializeToString()) for file in made.files.values()]
    [service] = [service for file in files for service in file.service]
    methods = {method.name: method for method in service.method}
    methods["GetShelf"].options.CopyFrom(methods["ListBooks"].options)
    served = {library.rpc(name).path for name in ("GetShelf", "ListBooks")}
    with pytest.raises(ValueError, match="get /v1/books is there twice"):
        describe(files, made.pool, served, Info("Library", "1"))


def test_two_versions_of_a_service_are_told_apart(library: Library) -> None:
    """By their full names, in tags and in the ids of operations; the document is valid."""
    made = library.descriptors
    files = list(made.files.values())
    [first] = [file for file in files if file.service and file.package == "library.v1"]
    text = text_format.MessageToString(first)
    text = text.replace("library.v1", "library.v2").replace('"/v1/', '"/v2/')
    second = text_format.Parse(text, FileDescriptorProto(), descriptor_pool=descriptor_pool.Default())
    second.name = "library/v2/library.proto"
    twice = Descriptors(FileDescriptorSet(file=[*files, second]).SerializeToString())
    served = {rpc.path for rpc in library.rpcs}
    served |= {path.replace("v1", "v2") for path in served}
    both = describe(list(twice.files.values()), twice.pool, served, Info("Library", "2"))
    OpenAPIV31SpecValidator(both).validate()
    assert {tag["name"] for tag in both["tags"]} == {"library.v1.LibraryService", "library.v2.LibraryService"}
    ids = [each["operationId"] for item in both["paths"].values() for each in item.values()]
    assert len(set(ids)) == len(ids)
    assert both["paths"]["/v2/books"]["get"]["operationId"] == "library.v2.LibraryService_ListBooks"


def test_a_method_may_be_called_as_another_ones_second_binding(library: Library) -> None:
    """Ids are not shared."""
    made = library.descriptors
    files = [type(file).FromString(file.SerializeToString()) for file in made.files.values()]
    [service] = [service for file in files for service in file.service]
    [shelf] = [method for method in service.method if method.name == "GetShelf"]
    shelf.name = "ListBooks_2"
    shelf.options.Extensions[annotations_pb2.http].get = "/v1/x/{name}"
    changed = Descriptors(FileDescriptorSet(file=files).SerializeToString())
    served = {f"/library.v1.LibraryService/{name}" for name in ("ListBooks", "ListBooks_2")}
    found = describe(list(changed.files.values()), changed.pool, served, Info("Library", "1"))
    OpenAPIV31SpecValidator(found).validate()
