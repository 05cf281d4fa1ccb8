"""The dashboards can be read at three in the morning, ask for what there is, and show what is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.deploy import grafana
from tests.deploy.filled import check_dashboards
from tests.deploy.grafana import DEPLOY, PROMETHEUS, SQL, Panel
from tests.deploy.series import unknown

BOARDS = grafana.boards()
PANELS = grafana.panels()
_PROVISIONED = DEPLOY / "grafana" / "provisioning"


def _uids() -> dict[str, str]:
    text = (_PROVISIONED / "datasources" / "ingestor.yaml").read_text()
    return {source["uid"]: source["type"] for source in yaml.safe_load(text)["datasources"]}


def test_there_are_two() -> None:
    """Under addresses that stay, and without ids, which are each Grafana's own."""
    assert {board["uid"] for board in BOARDS.values()} == {"ingestor", "ingestor-metrics"}
    assert all("id" not in board for board in BOARDS.values())
    links = {link["url"] for board in BOARDS.values() for link in board["links"]}
    assert links == {f"/d/{board['uid']}" for board in BOARDS.values()}


@pytest.mark.parametrize("name", BOARDS)
def test_the_layout(name: str) -> None:
    """Each panel has a number of its own and a place on the grid that no other takes."""
    laid = list(grafana.rows_and_panels(BOARDS[name]))
    assert len({each["id"] for each in laid}) == len(laid)
    for each in laid:
        place = each["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, each["title"]
    for one, other in combinations(laid, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


@pytest.mark.parametrize("panel", PANELS, ids=[panel.name for panel in PANELS])
def test_a_panel(panel: Panel) -> None:
    """It says what it shows and in which unit, and asks a data source that is provisioned."""
    shown = panel.json
    assert len(shown["description"]) > 20
    defaults = shown["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    values = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
    assert values == sorted(values)
    assert panel.targets
    assert len({target["refId"] for target in panel.targets}) == len(panel.targets)
    for asked in (shown["datasource"], *(target["datasource"] for target in panel.targets)):
        assert _uids()[asked["uid"]] == asked["type"]


def test_variables_are_used_and_known() -> None:
    """None is there for nothing, and their queries go where the panels' go."""
    for name, board in BOARDS.items():
        text = str([each.targets for each in PANELS if each.board == name])
        for variable in grafana.variables(name):
            assert f"${variable['name']}" in text or f"${{{variable['name']}:" in text, variable["name"]
            if variable["type"] == "query":
                assert _uids()[variable["datasource"]["uid"]] == variable["datasource"]["type"]
        assert board["templating"]["list"]


@pytest.mark.parametrize("panel", grafana.panels(PROMETHEUS), ids=lambda panel: panel.name)
def test_asks_prometheus_for_what_there_is(panel: Panel) -> None:
    """Each expression is PromQL over series and labels that /metrics shows."""
    for target in panel.targets:
        assert unknown(grafana.promql(target["expr"])) == []


async def test_shows_what_is_stored(database_url: str) -> None:
    """Every query runs on plain PostgreSQL, as the role that only reads, and gives rows."""
    assert len(grafana.panels(SQL)) >= 5
    await check_dashboards(database_url)


def test_what_is_not_filled_in_is_refused() -> None:
    """A macro that nobody tried does not slip through."""
    span = grafana.Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), 1000)
    with pytest.raises(ValueError, match=r"\$__timeGroup"):
        grafana.sql("SELECT $__timeGroup(time, '1m')", span, {})
    with pytest.raises(ValueError, match="not known"):
        grafana.promql("rate(up[$__interval])")


def test_files_are_mounted_where_they_are_looked_for() -> None:
    """By compose.yaml, as the provider says."""
    providers = yaml.safe_load((_PROVISIONED / "dashboards" / "ingestor.yaml").read_text())["providers"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    mounted = [volume.split(":") for volume in compose["services"]["grafana"]["volumes"]]
    assert ["./grafana/dashboards", providers[0]["options"]["path"], "ro"] in mounted
    assert ["./grafana/provisioning", "/etc/grafana/provisioning", "ro"] in mounted


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
