"""The dashboards as Grafana's server sees them: panels, targets, and queries with macros and variables filled in.

It knows the few macros that these dashboards use, and refuses any other, which would be tried nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FOLDER = DEPLOY / "grafana" / "dashboards"
PROMETHEUS, SQL = "ingestor-prometheus", "ingestor-postgres"

Variables = Mapping[str, Sequence[str]]
"""What is chosen for each: one value or several."""

_VARIABLE = re.compile(r"\$\{(\w+):(sqlstring|raw)\}")
_TIME_FILTER = re.compile(r"\$__timeFilter\((\w+)\)")


class Panel(NamedTuple):
    """One panel with the dashboard that it is on."""

    board: str
    json: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.board}: {self.json['title']}"

    @property
    def targets(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.json.get("targets", ())
        return found


class Span(NamedTuple):
    """What is looked at: the range, and the interval between two points."""

    start: datetime
    end: datetime
    interval_ms: int


def boards() -> dict[str, dict[str, Any]]:
    """All dashboards, by file."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def rows_and_panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All that has a place on the dashboard, also what is within a row that is folded."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def panels(datasource: str = "") -> list[Panel]:
    """All panels that are no rows; those of one data source where it is said."""
    return [
        Panel(name, each)
        for name, board in boards().items()
        for each in rows_and_panels(board)
        if each["type"] != "row" and datasource in ("", each["datasource"]["uid"])
    ]


def variables(board: str) -> list[dict[str, Any]]:
    """The dashboard's variables, in their order."""
    found: list[dict[str, Any]] = boards()[board]["templating"]["list"]
    return found


def sql(text: str, span: Span, chosen: Variables) -> str:
    """The query as the database gets it. Raises ValueError where something is left that would not be filled in."""

    def fill(match: re.Match[str]) -> str:
        values = chosen[match[1]]
        if match[2] == "raw":
            return ",".join(values)
        return ",".join("'" + value.replace("'", "''") + "'" for value in values)

    def limits(match: re.Match[str]) -> str:
        return f"{match[1]} BETWEEN '{_moment(span.start)}' AND '{_moment(span.end)}'"

    filled = _VARIABLE.sub(fill, _TIME_FILTER.sub(limits, text))
    filled = filled.replace("$__interval_ms", str(span.interval_ms))
    if "$" in filled:
        msg = f"this is not known here: {filled[filled.index('$') :][:40]}"
        raise ValueError(msg)
    return filled


def promql(expr: str) -> str:
    """The expression as Prometheus gets it, for all gateways. Raises ValueError as `sql`."""
    filled = expr.replace("$__rate_interval", "1m").replace('"$instance"', '".*"')
    if "$" in filled:
        msg = f"this is not known here: {filled}"
        raise ValueError(msg)
    return filled


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
