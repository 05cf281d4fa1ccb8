"""What a metric is, as data: what /metrics says of it and what METRICS.md says come from one place.

It knows no metric in particular.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, overload

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric under the name that is scraped: what it counts, in which unit, and when it moves (or is read),
    each as a sentence."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    what: str
    moves: str
    unit: str
    labels: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """What /metrics says of it."""
        return f"{self.what} {self.moves}"


class Declared(Generic[M]):
    """An attribute of a class that is declared with its meaning; each instance makes its own `M` in its own
    `registry`, when first asked for."""

    def __init__(self, families: tuple[Family, ...], make: Callable[[CollectorRegistry], M]) -> None:
        self.families = families
        self._make = make
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Declared[M]: ...
    @overload
    def __get__(self, instance: Declaring, owner: type) -> M: ...
    def __get__(self, instance: Declaring | None, owner: type) -> M | Declared[M]:
        if instance is None:
            return self
        # From now on the instance's own attribute is found first.
        made = vars(instance)[self._name] = self._make(instance.registry)
        return made


class Declaring:
    """What declares metrics: they are all made with it, so that they are scraped before they first move."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    @classmethod
    def families(cls) -> list[Family]:
        """All that is declared, in order."""
        return [family for _, declared in cls._declared() for family in declared.families]

    @classmethod
    def _declared(cls) -> list[tuple[str, Declared[object]]]:
        return [(name, each) for name, each in vars(cls).items() if isinstance(each, Declared)]

    def _make_all(self) -> None:
        for name, _ in self._declared():
            getattr(self, name)


def counter(
    name: str, what: str, moves: str, *, unit: str, labels: tuple[str, ...] = ()
) -> Declared[Counter]:
    """A counter; its name ends in `_total`."""
    family = Family(name, "counter", what, moves, unit, labels)
    return Declared((family,), lambda registry: Counter(name, family.help, labels, registry=registry))


def gauge(name: str, what: str, moves: str, *, unit: str, labels: tuple[str, ...] = ()) -> Declared[Gauge]:
    """A gauge."""
    family = Family(name, "gauge", what, moves, unit, labels)
    return Declared((family,), lambda registry: Gauge(name, family.help, labels, registry=registry))


def histogram(
    name: str, what: str, moves: str, *, unit: str, buckets: Sequence[float]
) -> Declared[Histogram]:
    """A histogram, by the upper bounds of its buckets."""
    family = Family(name, "histogram", what, moves, unit)
    return Declared(
        (family,), lambda registry: Histogram(name, family.help, buckets=buckets, registry=registry)
    )
