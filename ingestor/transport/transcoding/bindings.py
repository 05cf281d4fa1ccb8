"""What a google.api.http rule says of one method, checked: its paths, and what of request and answer goes where.

It refuses, with ValueError, every rule that can't be followed to the letter: what is not refused here is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from ingestor.transport.transcoding.query import Parameters
from ingestor.transport.transcoding.templates import Template, Variable, parsed
from ingestor.transport.transcoding.variables import resolved

ANY_METHOD = "*"
# All that HTTP parsers let through, but for CONNECT, which is for proxies.
_NAMES = """ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY
OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SUBSCRIBE TRACE UNBIND UNLINK UNLOCK
UNSUBSCRIBE *"""
_KINDS = frozenset(_NAMES.split())


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to a method. `body` is "*", empty for none, or the JSON name of the field that the body is;
    `response_body` is the JSON name of the field that is the answer, empty for the whole."""

    method: str
    template: Template
    variables: tuple[tuple[Variable, Callable[[Message, str], None]], ...]
    parameters: Parameters
    body: str
    response_body: str

    @property
    def whole(self) -> bool:
        """Whether the body says all of the request."""
        return self.body == "*" and not self.variables


def bindings(rule: HttpRule, request: Descriptor, response: Descriptor) -> Iterator[Binding]:
    """All that the rule says. Raises ValueError."""
    yield _binding(rule, request, response)
    for further in rule.additional_bindings:
        if further.additional_bindings:
            msg = "additional_bindings must not have some of their own"
            raise ValueError(msg)
        yield _binding(further, request, response)


def _binding(rule: HttpRule, request: Descriptor, response: Descriptor) -> Binding:
    method, path = _method_and_path(rule)
    template = parsed(path)
    variables = tuple((each, resolved(request, each.path)) for each in template.variables)
    body = rule.body
    if body not in ("", "*"):
        body = _json_name(request, body, "body")
    bound = frozenset(each.path for each in template.variables)
    if rule.body in bound:
        msg = f"{rule.body} is both the body and a variable of the path"
        raise ValueError(msg)
    _check_oneofs(
        request,
        [*(each.path for each in template.variables), *([rule.body] if body not in ("", "*") else [])],
    )
    answer = _json_name(response, rule.response_body, "response_body") if rule.response_body else ""
    return Binding(method, template, variables, Parameters(request, bound, rule.body), body, answer)


def _check_oneofs(request: Descriptor, paths: Iterable[str]) -> None:
    """Of two fields of one oneof, whose paths these are, one would be lost."""
    claimed: dict[str, str] = {}
    for path in paths:
        descriptor: Descriptor | None = request
        above = ""
        for name in path.split("."):
            assert descriptor is not None
            field = descriptor.fields_by_name[name]
            if field.containing_oneof is not None:
                oneof = above + field.containing_oneof.name
                first = claimed.setdefault(oneof, above + name)
                if first != above + name:
                    msg = f"{first} and {above + name} are of one oneof, of which one can be set"
                    raise ValueError(msg)
            above += f"{name}."
            descriptor = field.message_type


def _method_and_path(rule: HttpRule) -> tuple[str, str]:
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        msg = "it has no path"
        raise ValueError(msg)
    if pattern != "custom":
        return pattern.upper(), getattr(rule, pattern)
    if rule.custom.kind not in _KINDS:
        msg = f"{rule.custom.kind!r} is no HTTP method that can be served: {', '.join(sorted(_KINDS))} are"
        raise ValueError(msg)
    return rule.custom.kind, rule.custom.path


def _json_name(descriptor: Descriptor, name: str, what: str) -> str:
    field = descriptor.fields_by_name.get(name)
    if field is None:
        msg = f"its {what}, {name}, is no field of {descriptor.name}"
        raise ValueError(msg)
    json_name: str = field.json_name
    return json_name
