"""What every operation may answer beside what it is for: google.rpc.Status, by the table of what can go wrong."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from google.protobuf.message import Message
from google.rpc.code_pb2 import Code

from ingestor.errors import Later, Refusal, Unauthenticated, WrongMethod
from ingestor.transport.status import CHALLENGE, DETAILS, INTERNAL, TABLE, Answer
from ingestor.transport.transcoding.openapi.schemas import Schema, Schemas

_STATUS = "google.rpc.Status"
_ERROR: Schema = {"$ref": f"#/components/schemas/{_STATUS}"}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "After how many seconds the same request may be sent again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_ALLOW = {
    "Allow": {
        "description": "The methods that this path is served for.",
        "required": True,
        "schema": {"type": "string"},
    }
}
_AUTHENTICATE = {
    "WWW-Authenticate": {
        "description": "How a key is to be sent.",
        "required": True,
        "schema": {"type": "string", "const": CHALLENGE},
    }
}


def error_schema() -> Schema:
    """A reference to google.rpc.Status, where it is told inside of a body."""
    return dict(_ERROR)


def error_responses() -> dict[str, Any]:
    """The responses, by their names among the document's components: statuses, and `default`."""
    told: dict[int, list[tuple[Answer, type[Refusal]]]] = {INTERNAL.http: [(INTERNAL, Refusal)]}
    for refusal, answer in TABLE.items():
        told.setdefault(answer.http, []).append((answer, refusal))
    responses = {str(status): _response(status, told[status]) for status in sorted(told)}
    return {**responses, "default": _with_error("Any other error.")}


def error_schemas(schemas: Schemas) -> dict[str, Schema]:
    """google.rpc.Status and its details; `schemas` makes what they hold."""
    details = {kind.DESCRIPTOR.full_name: _detail(kind, schemas) for kind in DETAILS}
    status: Schema = {
        "type": "object",
        "title": "Status",
        "description": "How every error is told.",
        "properties": {
            "code": {
                "type": "integer",
                "format": "int32",
                "description": "The gRPC status code (google.rpc.Code).",
            },
            "message": {"type": "string", "description": "What is wrong, for a person."},
            "details": {
                "type": "array",
                "description": "The same for a program: which fields are wrong, or when to try again.",
                "items": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in details]},
            },
        },
        "required": ["code", "message", "details"],
    }
    return {_STATUS: status, **details}


def _detail(kind: type[Message], schemas: Schemas) -> Schema:
    made = schemas.object(kind.DESCRIPTOR)  # type: ignore[arg-type] # upb's own class, alike
    type_url = f"type.googleapis.com/{kind.DESCRIPTOR.full_name}"
    marked = {"@type": {"const": type_url, "description": "The type of this detail."}}
    return {**made, "properties": {**marked, **made["properties"]}, "required": ["@type"]}


def _response(status: int, told: list[tuple[Answer, type[Refusal]]]) -> dict[str, Any]:
    codes = dict.fromkeys(f"{Code.Name(answer.code)} ({answer.code})" for answer, _ in told)
    response = _with_error(f"{HTTPStatus(status).phrase}: `code` is {' or '.join(codes)}.")
    for _, refusal in told:
        if issubclass(refusal, Later):
            response["headers"] = _RETRY_AFTER
        if issubclass(refusal, WrongMethod):
            response["headers"] = _ALLOW
        if issubclass(refusal, Unauthenticated):
            response["headers"] = _AUTHENTICATE
    return response


def _with_error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": dict(_ERROR)}}}
