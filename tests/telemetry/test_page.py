"""METRICS.md and deploy/alerts.yml speak of the metrics that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ingestor.telemetry import Telemetry

ROOT = Path(__file__).resolve().parent.parent.parent
ALERTS = (ROOT / "deploy" / "alerts.yml").read_text()


def test_the_page_is_what_is_declared() -> None:
    """Else `make gen` has to be run."""
    command = [sys.executable, str(ROOT / "scripts" / "metrics_page.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_metric_is_declared_and_says_when_it_moves() -> None:
    """What is scraped under our name is declared, with type and labels, and the other way round."""
    telemetry = Telemetry()
    telemetry.calls.count("r", "grpc")
    telemetry.series_limited.labels("k")
    telemetry.connection_cut_off("grpc", "flood")
    telemetry.watch_calls(grpc=lambda: 0)
    shown = {}
    for metric in telemetry.registry.collect():
        if metric.name.startswith("ingestor_"):
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
            shown[name] = (metric.type, labels, metric.documentation)
    declared = {each.name: (each.type, set(each.labels), each.help) for each in Telemetry.families()}
    assert shown == declared
    for each in Telemetry.families():
        assert re.match(r"(Moves|Read when scraped|Set once)\b.*\.$", each.moves), each.name
        assert each.what.endswith(".")
        assert each.unit


def test_units_are_those_of_the_names() -> None:
    """Of seconds and bytes, which Prometheus has in the name."""
    for each in Telemetry.families():
        for unit in ("seconds", "bytes"):
            assert (each.unit == unit) == (unit in each.name.split("_")), each.name


def test_alerts_look_at_what_there_is() -> None:
    """Each series that a rule names is shown, under that name and with those labels."""
    telemetry = Telemetry()
    telemetry.calls.count("r", "grpc")
    telemetry.series_limited.labels("k")
    telemetry.connection_cut_off("grpc", "flood")
    samples = {
        sample.name: set(sample.labels)
        for family in telemetry.registry.collect()
        for sample in family.samples
    }
    rules = re.findall(r"expr: (.+)", ALERTS)
    assert len(rules) == ALERTS.count("- alert: ") == ALERTS.count("summary: ")
    for rule in rules:
        for name, labels in re.findall(r"\b(ingestor_\w+)(?:\{([^}]*)\})?", rule):
            assert name in samples, name
            assert set(re.findall(r"(\w+)=", labels)) <= samples[name], rule


def test_the_page_lists_every_alert() -> None:
    """None is missed for the way it is written."""
    page = (ROOT / "METRICS.md").read_text()
    names = re.findall(r"- alert: (\w+)", ALERTS)
    assert [name for name in names if f"| {name} | `" not in page] == []
    for must in ("oldest_age", "dead_lettered", "lost", "journal_room", "loop_lag"):
        assert must in ALERTS
