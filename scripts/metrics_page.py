"""Writes METRICS.md: every metric of /metrics, from its declaration, and the alerts of deploy/alerts.yml on it.

`--check` writes nothing and fails where the page is not what it would write.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ingestor.telemetry import Telemetry
from ingestor.telemetry.declared import Family

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "METRICS.md"
ALERTS = ROOT / "deploy" / "alerts.yml"

_ALERT = re.compile(r"- alert: (\w+)\n +expr: (.+)\n(?:(?! +- ).*\n)*? +summary: (.+)\n")
# A histogram's series have names of their own.
_SERIES = re.compile(r"(ingestor_\w+?)(?:_bucket|_sum|_count)?\b")

_HEAD = """# Metrics

<!-- Written by `make gen` from ingestor/telemetry and deploy/alerts.yml: do not edit. -->

What `GET /metrics` shows, in Prometheus' text format. Counters begin at 0 with each start of the process. They
add up: `received = committed + rejected + dead_lettered + duplicates + lost + pending`.

`/healthz`, `/readyz` and `/metrics` are no calls; nor is what can't be read as HTTP at all, or what a connection
refuses because it drains or has too many calls under way.
"""


class Alert(NamedTuple):
    """One rule of deploy/alerts.yml."""

    name: str
    expr: str
    summary: str

    @property
    def metrics(self) -> set[str]:
        """Our metrics that it looks at."""
        return set(_SERIES.findall(self.expr))


def alerts() -> list[Alert]:
    """The rules, in their order."""
    return [Alert(*found) for found in _ALERT.findall(ALERTS.read_text())]


def page() -> str:
    """The page as it should be."""
    rules = alerts()
    ours = Telemetry.families()
    return "\n".join(
        (
            _HEAD,
            *_table(("metric", "type", "unit", "meaning", "alerts"), (_row(each, rules) for each in ours)),
            "",
            "## Alerts",
            "",
            "As rules for Prometheus in [deploy/alerts.yml](deploy/alerts.yml).",
            "",
            *_table(("alert", "when", "what it means"), ((a.name, f"`{a.expr}`", a.summary) for a in rules)),
            "",
            "## Of the Python process",
            "",
            "By prometheus_client, on Linux.",
            "",
            *_table(("metric", "type", "meaning"), _of_the_library({each.name for each in ours})),
            "",
        )
    )


def _row(family: Family, rules: Iterable[Alert]) -> tuple[str, ...]:
    labels = f" by {', '.join(family.labels)}" if family.labels else ""
    watching = ", ".join(rule.name for rule in rules if family.name in rule.metrics)
    return f"`{family.name}`{labels}", family.type, family.unit, family.help, watching


def _of_the_library(ours: set[str]) -> Iterable[tuple[str, ...]]:
    for metric in Telemetry().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        if name not in ours:
            yield f"`{name}`", metric.type, f"{metric.documentation.rstrip('.')}."


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    for cells in (titles, ("---",) * len(titles), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where METRICS.md is out of date"
    )
    arguments = parser.parse_args()
    fresh = page()
    stale = not PAGE.exists() or PAGE.read_text() != fresh
    if arguments.check:
        if stale:
            print("METRICS.md is not what is declared: run `make gen`", file=sys.stderr)
        return int(stale)
    PAGE.write_text(fresh)
    print(f"METRICS.md: {'changed' if stale else 'as it was'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
