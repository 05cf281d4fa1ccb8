"""Alerts and runbook belong together, and look at what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from ingestor.cli.parser import parser
from ingestor.settings import Settings
from tests.deploy.grafana import DEPLOY
from tests.deploy.series import known, unknown

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()
ENTRIES = dict(re.findall(r"^## (\w+)\n\n(.+?)(?=\n## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
_TOLD = ("Means", "At risk", "Look", "Do", "Relax")


def test_each_alert_has_an_entry_and_each_entry_an_alert() -> None:
    """In the same order, so that a missing one is seen; and the address of each leads to its own."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert sorted(ENTRIES) == sorted(names)
    for rule in RULES:
        assert rule["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert(rule: dict[str, Any]) -> None:
    """It says what is wrong and how bad it is; its expression is PromQL over series and labels that there are."""
    assert unknown(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(text.endswith(".") for key, text in rule["annotations"].items() if key != "runbook_url")


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry(name: str) -> None:
    """It says what it means, what is at risk, where to look, what to do and when it is over."""
    assert re.findall(r"^- \*\*([\w ]+)\*\*: ", ENTRIES[name], re.MULTILINE) == list(_TOLD)


def test_the_runbook_names_what_there_is() -> None:
    """Metrics, settings, commands and other entries under the names that they have."""
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known()}
    named = set(re.findall(r"`((?:ingestor|process)_\w+|up)\b", RUNBOOK))
    assert named - families == set()
    # In capitals with an underscore, what is no system's.
    settings = set(re.findall(r"\b(?<!_)([A-Z]+_[A-Z_]+)\b", RUNBOOK)) - {
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "PERMISSION_DENIED",
    }
    assert {name.removeprefix("INGESTOR_") for name in settings} - {
        name.upper() for name in Settings.model_fields
    } == set()
    commands = parser()
    for command in set(
        re.findall(r"ingestor ((?:journal|dead-letters|keys) [a-z]+|check|migrate)\b", RUNBOOK)
    ):
        words = command.split()
        ids = ["1"] if words[-1] in ("show", "replay", "purge", "create") else []
        commands.parse_args([*words, *ids])
    assert set(re.findall(r"\bIngestor[A-Z]\w+", RUNBOOK)) <= set(ENTRIES)


def test_prometheus_takes_them() -> None:
    """By its own tool, with the file that compose gives it."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "config", str(DEPLOY / "prometheus.yml")],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_job_is_what_the_alerts_look_for() -> None:
    """Prometheus gives each series its name, and takes the rules."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == ["ingestor"]
    assert config["rule_files"] == ["alerts.yml"]
    looked = {job for rule in RULES for job in re.findall(r'job="(\w+)"', rule["expr"])}
    assert looked == {"ingestor"}
