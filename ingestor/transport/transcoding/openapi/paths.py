"""google.api.http path templates as OpenAPI writes paths: `/v1/{a.b=x/*}:go` becomes `/v1/x/{a.b}:go`.

OpenAPI's parameters stand for one segment each. What it can't say, that `**` takes any number of segments, is told
in the parameter's description.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

_VARIABLE_OR_WILDCARD = re.compile(r"\{([\w.]+)(?:=([^{}]*))?\}|(?<=/)\*\*?")
_WILDCARD = re.compile(r"\*\*?")
_PARAMETER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Variable:
    """One wildcard of a template, under the name that it has in the OpenAPI path. `field` is the path of the
    field that it becomes (a part of), None for a bare one; `whole` says that it alone becomes that field's value;
    `many`, that it takes any number of segments."""

    name: str
    field: str | None
    pattern: str
    whole: bool
    many: bool


@dataclass(frozen=True, slots=True)
class Path:
    """A path as OpenAPI writes it. `bound` has the paths of the fields that it binds."""

    text: str
    variables: tuple[Variable, ...]
    bound: frozenset[str]


def read_template(template: str, name_of: Callable[[str], str]) -> Path:
    """The path of this template; `name_of` tells how a field's path is shown."""
    variables: list[Variable] = []
    bound: set[str] = set()

    def wildcard(found: re.Match[str]) -> str:
        field, pattern = found[1], found[2] or "*"
        if field is None:
            return add(Variable(f"wildcard_{len(variables) + 1}", None, found[0], False, found[0] == "**"))
        bound.add(field)
        count = len(_WILDCARD.findall(pattern))
        numbers = iter(range(1, count + 1))

        def part(wild: re.Match[str]) -> str:
            name = name_of(field) if count == 1 else f"{name_of(field)}_{next(numbers)}"
            return add(Variable(name, field, pattern, wild[0] == pattern, wild[0] == "**"))

        return _WILDCARD.sub(part, pattern)

    def add(variable: Variable) -> str:
        variables.append(variable)
        return f"{{{variable.name}}}"

    text = _VARIABLE_OR_WILDCARD.sub(wildcard, template)
    return Path(text, tuple(variables), frozenset(bound))


class Spellings:
    """Spells alike what OpenAPI holds to be the same path: two that differ in the names of parameters alone."""

    def __init__(self) -> None:
        self._names: dict[str, list[list[str]]] = {}
        self._taken: set[tuple[str, str]] = set()

    def spell(self, method: str, path: Path) -> Path:
        """The path in the spelling that was there first; in one of its own where the method is taken there."""
        shape = _PARAMETER.sub("{}", path.text)
        known = self._names.setdefault(shape, [])
        for names in known:
            spelled = _renamed(path, names)
            if self._take(method, spelled):
                return spelled
        names = [variable.name for variable in path.variables]
        while names and names in known:
            names = [f"{name}_" for name in names]
        spelled = _renamed(path, names)
        if not self._take(method, spelled):
            msg = f"{method} {path.text} is there twice"
            raise ValueError(msg)
        known.append(names)
        return spelled

    def _take(self, method: str, path: Path) -> bool:
        free = (method, path.text) not in self._taken
        self._taken.add((method, path.text))
        return free


def _renamed(path: Path, names: Iterable[str]) -> Path:
    variables = tuple(
        replace(variable, name=name) for variable, name in zip(path.variables, names, strict=True)
    )
    left = iter(variables)
    return replace(
        path, text=_PARAMETER.sub(lambda _: f"{{{next(left).name}}}", path.text), variables=variables
    )
