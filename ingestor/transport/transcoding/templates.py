"""Path templates as google/api/http.proto, "Path template syntax", defines them: read, checked, and taken apart.

It knows no messages: whether a variable's field exists is not its business. It refuses, with ValueError, whatever
the grammar does not allow, `**` anywhere but at the end included, so that matching never has to guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ingestor.errors import Invalid
from ingestor.transport.transcoding.escapes import unescaped


class Wild(Enum):
    """A segment that stands for others."""

    ONE = "*"
    REST = "**"


Segment = str | Wild

_LITERAL = r"(?:[A-Za-z0-9._~!$&'()+,;@-]|%[0-9A-Fa-f]{2})+"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_SEGMENT = rf"(?:\*\*|\*|{_LITERAL})"
_PIECE = re.compile(
    rf"/(?:(?P<segment>{_SEGMENT})"
    rf"|\{{(?P<path>{_NAME}(?:\.{_NAME})*)(?:=(?P<pattern>{_SEGMENT}(?:/{_SEGMENT})*))?\}})"
)
_VERB = re.compile(r":([A-Za-z0-9._~-]+)")


@dataclass(frozen=True, slots=True)
class Variable:
    """A part of the path that is a field's value: `count` segments from `first` on, or all from there on."""

    path: str
    first: int
    count: int | None
    single: bool
    """Whether it stands for exactly one segment, in which every escape is decoded."""

    def of(self, raw_segments: Sequence[str]) -> str:
        """Its value in a path that matches, whose (undecoded) segments these are. Raises Invalid."""
        if self.single:
            return unescaped(raw_segments[self.first])
        end = None if self.count is None else self.first + self.count
        return unescaped("/".join(raw_segments[self.first : end]), slashes=False)


@dataclass(frozen=True, slots=True)
class Template:
    """`segments` are decoded where they are literal; `verb` is empty where there is none."""

    text: str
    segments: tuple[Segment, ...]
    verb: str
    variables: tuple[Variable, ...]

    @property
    def literal(self) -> bool:
        """Whether it matches one path and its other spellings alone."""
        return not any(isinstance(segment, Wild) for segment in self.segments)

    @property
    def path(self) -> str:
        """The path that it matches, if it is literal."""
        verb = f":{self.verb}" if self.verb else ""
        return "".join(f"/{segment}" for segment in self.segments) + verb


def parsed(text: str) -> Template:
    """The template that this text is. Raises ValueError."""
    segments: list[Segment] = []
    variables: list[Variable] = []
    at = 0
    while (piece := _PIECE.match(text, at)) is not None:
        if piece["path"] is None:
            segments.append(_segment(piece["segment"]))
        else:
            pattern = [_segment(each) for each in (piece["pattern"] or "*").split("/")]
            variables.append(_variable(piece["path"], len(segments), pattern))
            segments.extend(pattern)
        at = piece.end()
    verb = _VERB.fullmatch(text, at)
    if not segments or (at < len(text) and verb is None):
        msg = f"{text!r} is no path template: it can't be read from {text[at:]!r} on"
        raise ValueError(msg)
    _check(text, segments, variables)
    return Template(text, tuple(segments), "" if verb is None else verb[1], tuple(variables))


def _segment(text: str) -> Segment:
    if text in ("*", "**"):
        return Wild(text)
    try:
        return unescaped(text)
    except Invalid as error:
        msg = f"{text!r} can't be in a path template: {error.message}"
        raise ValueError(msg) from None


def _variable(path: str, first: int, pattern: list[Segment]) -> Variable:
    rest = Wild.REST in pattern
    return Variable(path, first, None if rest else len(pattern), single=len(pattern) == 1 and not rest)


def _check(text: str, segments: list[Segment], variables: list[Variable]) -> None:
    if Wild.REST in segments[:-1]:
        msg = f"{text!r} is no path template: ** must be its last segment"
        raise ValueError(msg)
    paths = [variable.path for variable in variables]
    if len(set(paths)) < len(paths):
        msg = f"{text!r} has a variable twice"
        raise ValueError(msg)
