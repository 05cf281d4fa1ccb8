"""Finds, among many path templates, the one that a request's path is of.

Where several match, the first segment in which they differ decides: a literal goes before `*`, and `*` before `**`.
A verb that some template ends in goes before all that: `/v1/x:verb` is cut at the colon when that leads anywhere;
otherwise the colon is part of the segment. The templates of one method are one tree, which a search never enters
twice at the same node, so that no path takes longer than the templates are long.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Paths(Generic[_T]):
    """Templates, each with a target."""

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()
        self._verbs: list[str] = [""]

    def add(self, template: Template, target: _T) -> _T:
        """Adds a template; returns the target that is now found by it: of two that match the same paths in the same
        way, the first one's."""
        node, rest = self._root, False
        for segment in template.segments:
            if segment is Wild.REST:
                rest = True
            elif isinstance(segment, Wild):
                node.one = node.one or _Node()
                node = node.one
            else:
                node = node.literals.setdefault(segment, _Node())
        if template.verb not in self._verbs:
            self._verbs.append(template.verb)
            self._verbs.sort(key=len, reverse=True)  # of `:a` and `:b:a`, were there such, the longer
        return (node.rests if rest else node.ends).setdefault(template.verb, target)

    def find(self, raw_path: str) -> Found[_T] | None:
        """What this (undecoded) path is of. Raises Invalid for a path with a broken escape."""
        if not raw_path.startswith("/"):
            return None
        raw = raw_path[1:].split("/")
        segments = [unescaped(segment) for segment in raw]
        last = raw[-1]
        for verb in self._verbs:
            if not verb:
                cut = last
            elif last.endswith(f":{verb}"):
                cut = last[: -len(verb) - 1]
            else:
                continue
            segments[-1] = unescaped(cut)
            target = _search(self._root, segments, 0, verb)
            if target is not None:
                return Found(target, [*raw[:-1], cut])
        return None


def _search(node: _Node[_T], segments: Sequence[str], at: int, verb: str) -> _T | None:
    if at == len(segments):
        return node.ends.get(verb, node.rests.get(verb))
    found = None
    if (child := node.literals.get(segments[at])) is not None:
        found = _search(child, segments, at + 1, verb)
    if found is None and node.one is not None and segments[at]:
        found = _search(node.one, segments, at + 1, verb)
    return node.rests.get(verb) if found is None else found
