"""The one table from what can go wrong to gRPC codes, HTTP statuses and google.rpc.Status.

Codes and details: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto and
error_details.proto.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from ingestor import errors


@dataclass(frozen=True, slots=True)
class Answer:
    """How a failure is told: `code` is gRPC's, `http` the HTTP status."""

    code: int
    http: int


TABLE: dict[type[errors.Refusal], Answer] = {
    errors.Invalid: Answer(Code.INVALID_ARGUMENT, 400),
    errors.TooLarge: Answer(Code.RESOURCE_EXHAUSTED, 413),
    errors.Overloaded: Answer(Code.RESOURCE_EXHAUSTED, 429),
    errors.TooFast: Answer(Code.RESOURCE_EXHAUSTED, 429),
    errors.Unavailable: Answer(Code.UNAVAILABLE, 503),
    errors.Unauthenticated: Answer(Code.UNAUTHENTICATED, 401),
    errors.Forbidden: Answer(Code.PERMISSION_DENIED, 403),
    errors.Conflict: Answer(Code.ALREADY_EXISTS, 409),
    errors.NotStored: Answer(Code.FAILED_PRECONDITION, 400),
    errors.TooLate: Answer(Code.DEADLINE_EXCEEDED, 504),
    errors.TooSlow: Answer(Code.DEADLINE_EXCEEDED, 504),
    errors.SentTooSlowly: Answer(Code.DEADLINE_EXCEEDED, 408),
    errors.Unsupported: Answer(Code.UNIMPLEMENTED, 501),
    errors.NotFound: Answer(Code.NOT_FOUND, 404),
    errors.NoSuchRoute: Answer(Code.NOT_FOUND, 404),
    errors.WrongMethod: Answer(Code.UNIMPLEMENTED, 405),
    errors.CrossSite: Answer(Code.PERMISSION_DENIED, 403),
    errors.WrongMediaType: Answer(Code.INVALID_ARGUMENT, 415),
}
DETAILS: tuple[type[Message], ...] = (BadRequest, RetryInfo)
"""All that `details_of` gives."""
CHALLENGE = "Bearer"
"""How a key is to be sent (RFC 6750)."""
INTERNAL = Answer(Code.INTERNAL, 500)


class InternalFault(errors.Refusal):
    """Our fault. Its message says nothing of our insides."""

    def __init__(self) -> None:
        super().__init__("internal error: the server's log says more")


def answer_to(refusal: errors.Refusal) -> Answer:
    """The row of the table for this refusal."""
    return TABLE.get(type(refusal), INTERNAL)


def code_of(error: BaseException) -> int:
    """gRPC's code for whatever ended a call."""
    if isinstance(error, errors.Refusal):
        return answer_to(error).code
    return int(Code.CANCELLED if isinstance(error, asyncio.CancelledError) else Code.INTERNAL)


def details_of(refusal: errors.Refusal) -> list[Message]:
    """What google.rpc.Status carries beside code and message: BadRequest or RetryInfo."""
    if isinstance(refusal, errors.Invalid) and refusal.violations:
        violations = [
            BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in refusal.violations
        ]
        return [BadRequest(field_violations=violations)]
    if isinstance(refusal, errors.Later):
        info = RetryInfo()
        info.retry_delay.FromTimedelta(timedelta(seconds=refusal.retry_after_s))
        return [info]
    return []


def headers_of(refusal: errors.Refusal) -> dict[str, str]:
    """The HTTP headers that go with it: Retry-After in whole seconds, Allow, or WWW-Authenticate."""
    if isinstance(refusal, errors.Later):
        return {"Retry-After": str(max(1, math.ceil(refusal.retry_after_s)))}
    if isinstance(refusal, errors.WrongMethod):
        return {"Allow": ", ".join(refusal.allowed)}
    if isinstance(refusal, errors.Unauthenticated):
        return {"WWW-Authenticate": CHALLENGE}
    return {}


def json_of(refusal: errors.Refusal) -> str:
    """The JSON error body: google.rpc.Status."""
    status = Status(code=answer_to(refusal).code, message=refusal.message)
    for detail in details_of(refusal):
        status.details.add().Pack(detail)
    # A status without details says so; empty fields inside of details are left out.
    details = MessageToDict(status).get("details", [])
    body = {"code": status.code, "message": status.message, "details": details}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
