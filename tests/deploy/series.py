"""What Prometheus knows of us, each series by the name that is scraped; and what an expression asks for.

From the real registry, so that a metric that is renamed breaks what still asks for the old one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser

from ingestor.telemetry import Telemetry

# What Prometheus adds to all that it scrapes, and its own series.
_TARGET = frozenset({"job", "instance"})
_OWN = {"up": _TARGET, "ALERTS": frozenset({"alertname", "alertstate"})}


def known() -> dict[str, frozenset[str]]:
    """The labels of each series that there can be."""
    telemetry = Telemetry()
    telemetry.calls.count("r", "grpc")
    labels = {each.name: each.labels for each in Telemetry.families()}
    found: dict[str, frozenset[str]] = dict(_OWN)
    for family in telemetry.registry.collect():
        for sample in family.samples:
            found[sample.name] = _TARGET | frozenset(sample.labels)
    for name, declared in labels.items():  # with labels there is no sample before the first call
        found.setdefault(name, _TARGET | frozenset(declared))
    return found


def asked(expr: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Each series in it, with the labels that it looks at; those that results are grouped by are looked at in all.
    Raises ValueError for what is no PromQL."""
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(expr), nodes.append)
    grouped = frozenset(
        label
        for node in nodes
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None
        for label in node.modifier.labels
    )
    for node in nodes:
        if isinstance(node, promql_parser.VectorSelector):
            yield (
                node.name or "",
                grouped | {each.name for each in node.matchers.matchers if each.name != "__name__"},
            )


def unknown(expr: str) -> list[str]:
    """Series and labels in it that there are not."""
    there = known()
    return [
        f"{name}{{{', '.join(sorted(labels - there.get(name, frozenset())))}}}"
        for name, labels in asked(expr)
        if name not in there or labels - there[name]
    ]
