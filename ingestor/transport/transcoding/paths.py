"""Finds, among many path templates, the one that a request's path is of.

Where several match, the first segment in which they differ decides: a literal goes before `*`, and `*` before `**`.
A verb that some template ends in goes before all that: `/v1/x:verb` is cut at the colon when that leads anywhere,
for whatever HTTP method, so that DELETE of it never deletes something of that name; otherwise the colon is part of
the segment. The templates of one HTTP method are one tree, which a search never enters twice at the same node, so
that no path takes longer than the templates are long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from ingestor.transport.transcoding.escapes import unescaped
from ingestor.transport.transcoding.templates import Template, Wild

_T = TypeVar("_T")


class Found(NamedTuple, Generic[_T]):
    """What a template was added with, and the path's undecoded segments, without the verb."""

    target: _T
    segments: Sequence[str]


class _Node(Generic[_T]):
    """What may follow after some segments. `ends` and `rests` are targets by verb: of templates that end here, and
    of those that go on with `**`."""

    __slots__ = ("ends", "literals", "one", "rests")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[_T]] = {}
        self.one: _Node[_T] | None = None
        self.ends: dict[str, _T] = {}
        self.rests: dict[str, _T] = {}


class _Cut(NamedTuple):
    """A path with a verb cut off, its segments as they were sent and decoded."""

    verb: str
    raw: Sequence[str]
    decoded: Sequence[str]


class Paths(Generic[_T]):
    """Templates for HTTP methods, each with a target. A search raises Invalid for a path with a broken escape."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node[_T]] = {}
        self._verbs: list[str] = []

    def add(self, method: str, template: Template, target: _T) -> _T:
        """Adds a template; returns the target that is now found by it: of two that match the same paths in the same
        way, the first one's."""
        node, rest = self._roots.setdefault(method, _Node()), False
        for segment in template.segments:
            if segment is Wild.REST:
                rest = True
            elif isinstance(segment, Wild):
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.literals.setdefault(segment, _Node())
        if template.verb and template.verb not in self._verbs:
            self._verbs.append(template.verb)
        return (node.rests if rest else node.ends).setdefault(template.verb, target)

    def find(self, methods: Sequence[str], raw_path: str) -> Found[_T] | None:
        """What this (undecoded) path is of, for the first of these methods that it is of anything for."""
        for cut in self._cuts(raw_path):
            for method in methods:
                if (found := self._found(method, cut)) is not None:
                    return found
            if any(self._found(method, cut) for method in self._roots):
                return None
        return None

    def methods(self, raw_path: str) -> set[str]:
        """Those that this path is of anything for."""
        for cut in self._cuts(raw_path):
            if methods := {method for method in self._roots if self._found(method, cut)}:
                return methods
        return set()

    def _found(self, method: str, cut: _Cut) -> Found[_T] | None:
        root = self._roots.get(method)
        target = None if root is None else _search(root, cut.decoded, 0, cut.verb)
        return None if target is None else Found(target, cut.raw)

    def _cuts(self, raw_path: str) -> Iterator[_Cut]:
        """The path cut at each verb that it ends in, and last as it is."""
        if not raw_path.startswith("/"):
            return
        raw = raw_path[1:].split("/")
        plain = "%" not in raw_path and raw_path.isascii()
        decoded = raw if plain else [unescaped(segment) for segment in raw]
        if ":" in raw[-1]:
            for verb in self._verbs:
                if raw[-1].endswith(f":{verb}"):
                    last = raw[-1][: -len(verb) - 1]
                    yield _Cut(verb, [*raw[:-1], last], [*decoded[:-1], unescaped(last)])
        yield _Cut("", raw, decoded)


def _search(node: _Node[_T], segments: Sequence[str], at: int, verb: str) -> _T | None:
    if at == len(segments):
        return node.ends.get(verb, node.rests.get(verb))
    found = None
    if (child := node.literals.get(segments[at])) is not None:
        found = _search(child, segments, at + 1, verb)
    if found is None and node.one is not None and segments[at]:
        found = _search(node.one, segments, at + 1, verb)
    return node.rests.get(verb) if found is None else found
