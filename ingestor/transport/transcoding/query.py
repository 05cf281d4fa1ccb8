"""Query parameters into the fields of a message, as google/api/http.proto maps them.

A parameter's name is a field's path, in proto or JSON names: `filter.min_size=3`, `tag=a&tag=b`, `labels[k]=v`. It
is as strict as JSON bodies are: a name that is no field is refused, since who misspells a filter would otherwise
get everything; so is a value given twice for a field that holds one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ingestor.errors import FieldViolation, Invalid
from ingestor.transport.transcoding.escapes import unescaped
from ingestor.transport.transcoding.printable import printable
from ingestor.transport.transcoding.shapes import is_map, is_well_known
from ingestor.transport.transcoding.texts import Reader, reader_of
from ingestor.transport.transcoding.variables import put

_PARAMETERS_MAX = 500
# Messages below one another; the descriptors may go round.
_DEPTH_MAX = 16
# Names that requests have given; where descriptors go round, there is no end of them.
_REMEMBERED_MAX = 256

_TWICE = "is given more than once"


@dataclass(frozen=True, slots=True)
class _Target:
    """A field that parameters can give: how to reach and write it. `claims` are what a parameter for it takes: each
    oneof on its way, with the field that it takes it for."""

    parents: tuple[str, ...]
    field: FieldDescriptor
    read: Reader
    read_key: Reader | None
    claims: tuple[tuple[str, str], ...]
    path: str

    def write(self, message: Message, key: str, text: str) -> None:
        """Raises ValueError for a text that is no such value."""
        holder: Any = message
        value = self.read(text)
        for name in self.parents:
            holder = getattr(holder, name)
        if self.read_key is not None:
            _put_in_map(getattr(holder, self.field.name), self.field, self.read_key(key), value)
        elif self.field.is_repeated:
            getattr(holder, self.field.name).append(value)
        else:
            put(holder, self.field, value)


def _put_in_map(target: Any, field: FieldDescriptor, key: Any, value: Any) -> None:
    assert field.message_type is not None
    if key in target:  # here, since one key can be written in several ways
        raise ValueError(_TWICE)
    if field.message_type.fields_by_name["value"].message_type is None:
        target[key] = value
    else:
        target[key].CopyFrom(value)


class Parameters:
    """Reads query strings for messages of one type. Fields at or below a path of `bound` are the URL path's: their
    parameters are passed over. The field `body`, or with "*" every field, is the body's: they are refused."""

    def __init__(self, descriptor: Descriptor, bound: frozenset[str], body: str) -> None:
        self._descriptor = descriptor
        self._bound = bound
        self._body = body
        # By path, and whether there is a key.
        self._known: dict[tuple[str, bool], _Target | None] = {}
        self._names: dict[str, dict[str, FieldDescriptor]] = {}
        self._readers: dict[str, Reader | None] = {}

    def read(self, query: str, message: Message) -> None:
        """Writes the parameters of this (undecoded) query string into the message. Raises Invalid."""
        given: set[str] = set()
        claimed: dict[str, str] = {}
        for name, text in _pairs(query):
            path, key = _path_and_key(name)
            target = self._remembered(name, path, key)
            if target is None:
                continue
            if target.path in given and not target.field.is_repeated:
                raise _invalid(name, _TWICE)
            given.add(target.path)
            for oneof, member in target.claims:
                if claimed.setdefault(oneof, member) != member:
                    raise _invalid(name, f"excludes {claimed[oneof]}, which is given, too")
            try:
                target.write(message, key or "", text)
            except ValueError as error:
                raise _invalid(name, str(error)) from None

    def _remembered(self, name: str, path: str, key: str | None) -> _Target | None:
        """As `_target`, which takes longer than all the rest."""
        known = path, key is not None
        if known in self._known:
            return self._known[known]
        target = self._target(name, path, key)
        if len(self._known) < _REMEMBERED_MAX:
            self._known[known] = target
        return target

    def _target(self, name: str, path: str, key: str | None) -> _Target | None:
        """What a parameter of this name gives; None for what the URL's path gives already."""
        steps = path.split(".")
        if self._body == "*":
            raise _invalid(name, "is no parameter: this method takes its fields from the body")
        if len(steps) > _DEPTH_MAX:
            raise _invalid(name, "is nested too deeply")
        descriptor = self._descriptor
        parents: list[str] = []
        claims: list[tuple[str, str]] = []
        for index, step in enumerate(steps):
            field = self._field(descriptor, step)
            if field is None:
                raise _invalid(name, _no_field_of(descriptor))
            here = ".".join((*parents, field.name))
            if here in self._bound:
                return None
            if field.containing_oneof is not None:
                claims.append((".".join((*parents, field.containing_oneof.name)), field.name))
            if index == len(steps) - 1:
                if [*parents, field.name][0] == self._body:
                    raise _invalid(name, "is no parameter: this method takes it from the body")
                return self._last(name, tuple(parents), field, key, tuple(claims))
            if field.message_type is None or field.is_repeated or is_well_known(field.message_type):
                raise _invalid(name, f"has no fields below {here}")
            parents.append(field.name)
            descriptor = field.message_type
        raise AssertionError

    def _last(
        self,
        name: str,
        parents: tuple[str, ...],
        field: FieldDescriptor,
        key: str | None,
        claims: tuple[tuple[str, str], ...],
    ) -> _Target:
        value, read_key = field, None
        if is_map(field.message_type):
            assert field.message_type is not None
            if key is None:
                raise _invalid(name, f"is a map: give its values as {printable(name)}[key]")
            read_key = self._reader(field.message_type.fields_by_name["key"])
            value = field.message_type.fields_by_name["value"]
        elif key is not None:
            raise _invalid(name, "is no map")
        read = self._reader(value)
        if read is None:
            raise _invalid(name, _why_not(field))
        return _Target(parents, field, read, read_key, claims, ".".join((*parents, field.name)))

    def _field(self, descriptor: Descriptor, name: str) -> FieldDescriptor | None:
        names = self._names.get(descriptor.full_name)
        if names is None:
            names = {field.name: field for field in descriptor.fields}
            # Last, for a JSON name goes before another field's proto name.
            names.update({field.json_name: field for field in descriptor.fields})
            self._names[descriptor.full_name] = names
        return names.get(name)

    def _reader(self, field: FieldDescriptor) -> Reader | None:
        if field.full_name not in self._readers:
            self._readers[field.full_name] = reader_of(field)
        return self._readers[field.full_name]


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    if query.count("&") >= _PARAMETERS_MAX:
        msg = f"the query string has too many parameters, {_PARAMETERS_MAX} at most"
        raise Invalid(msg)
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.replace("+", " ").partition("=")
            yield unescaped(name), unescaped(value)


def _no_field_of(descriptor: Descriptor) -> str:
    names = ", ".join(field.json_name for field in descriptor.fields)
    return f"is no field of {descriptor.name} (it has {names})"


def _why_not(field: FieldDescriptor) -> str:
    """What is said of a field that no text can be the value of."""
    message = field.message_type
    if message is None or field.is_repeated or is_well_known(message):  # a map's fields are repeated, too
        return "can't be a parameter: it holds messages"
    return f"is a message: give its fields, as {field.name}.field"


def _path_and_key(name: str) -> tuple[str, str | None]:
    """`labels[k]` is a map's field and a key; a key may hold anything."""
    path, bracket, rest = name.partition("[")
    return (path, rest[:-1]) if bracket and rest.endswith("]") else (name, None)


def _invalid(name: str, problem: str) -> Invalid:
    return Invalid.fields([FieldViolation(printable(name), problem)])
