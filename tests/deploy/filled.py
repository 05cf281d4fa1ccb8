"""Runs the dashboards' SQL as Grafana does, in a database that a gateway has filled.

On which server that is, the test decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tests.deploy import grafana
from tests.deploy.grafana import SQL, Span
from tests.gateway import gateway
from tests.roles import INGEST, MIGRATE, READ, as_role, roles, run_script
from tests.storage.deliveries import opened

BOARD = "metrics.json"
# A quote in it, since names are callers' own.
SERVICE, METRIC = "o'brien", "latency_ms"
_INTERVALS_MS = (1_000, 60_000, 7 * 86_400_000)


def _metrics(now: datetime) -> list[dict[str, Any]]:
    """Two services; one has metrics without labels, and with two label sets."""
    names = ((SERVICE, METRIC), (SERVICE, "orders"), ("checkout", METRIC))
    labels: tuple[dict[str, str], ...] = ({}, {"region": "eu", "zone": "a"}, {"region": "us"})
    return [
        {
            "serviceName": service,
            "metricName": metric,
            "labels": each,
            "value": 10.0 * set_number + minute,
            "time": (now - timedelta(minutes=minute)).isoformat(),
        }
        for service, metric in names
        for set_number, each in enumerate(labels)
        for minute in range(20)
    ]


async def check_dashboards(url: str) -> None:
    """Each query on the database is answered to the role that only reads, with rows, and right."""
    now = datetime.now(UTC)
    async with roles(url):
        async with opened(as_role(url, MIGRATE)):
            pass
        await run_script(url)
        async with gateway(as_role(url, INGEST)) as served:
            batch = {"metrics": _metrics(now), "ack": "ACK_LEVEL_COMMITTED"}
            assert (await served.post("/v1/metrics:batch", batch))[0] == 200
        reader = await asyncpg.connect(as_role(url, READ))
        try:
            await _look(reader, now)
        finally:
            await reader.close()


async def _look(reader: asyncpg.Connection[asyncpg.Record], now: datetime) -> None:
    span = Span(now - timedelta(hours=1), now, _INTERVALS_MS[0])
    offered = await _offered(reader, span)
    assert offered["service"] == ["checkout", SERVICE]
    assert offered["metric"] == [METRIC, "orders"]
    assert list(map(json.loads, offered["labels"])) == [{"region": "eu"}, {"region": "us"}, {"zone": "a"}]
    for aggregation in offered["aggregation"]:
        for interval_ms in _INTERVALS_MS:
            await _check_panels(reader, span._replace(interval_ms=interval_ms), [aggregation])
    chosen = {"service": [SERVICE], "metric": [METRIC], "aggregation": ["count"]}
    eu, us, zone = '{"region": "eu"}', '{"region": "us"}', '{"zone": "a"}'
    # Of one label any of the values, of each label one.
    for labels, rows in (
        (["{}"], 60),
        ([eu], 20),
        ([eu, us], 40),
        ([eu, zone], 20),
        ([eu, us, zone], 20),
        ([us, zone], 0),
        (['{"region": "eu", "zone": "b"}'], 0),
        (['{"other": "x"}'], 0),
    ):
        for title in ("$aggregation by metric", "$aggregation by labels"):
            found = await _rows(reader, title, span, {**chosen, "labels": labels})
            assert sum(row["value"] for row in found) == rows, (title, labels)


async def _offered(reader: asyncpg.Connection[asyncpg.Record], span: Span) -> dict[str, list[str]]:
    """What the variables' lists hold, each asked with the last of those before it chosen."""
    offered: dict[str, list[str]] = {}
    for variable in grafana.variables(BOARD):
        if variable["type"] == "custom":
            offered[variable["name"]] = variable["query"].split(",")
            continue
        before = {name: values[-1:] for name, values in offered.items()}
        rows = await reader.fetch(grafana.sql(variable["query"], span, before))
        offered[variable["name"]] = [row["__value"] if "__value" in row.keys() else row[0] for row in rows]  # noqa: SIM118
    return offered


async def _check_panels(
    reader: asyncpg.Connection[asyncpg.Record], span: Span, aggregation: Sequence[str]
) -> None:
    # `All` puts this in as it is, quotes and all.
    [everything] = [each["allValue"] for each in grafana.variables(BOARD) if each["name"] == "labels"]
    assert everything == "'{}'"
    chosen = {
        "service": [SERVICE],
        "metric": [METRIC, "orders"],
        "labels": ["{}"],
        "aggregation": aggregation,
    }
    for panel in grafana.panels(SQL):
        for target in panel.targets:
            rows = await reader.fetch(grafana.sql(target["rawSql"], span, chosen))
            assert rows, panel.name
            if target["format"] == "time_series":
                assert list(rows[0].keys()) == ["time", "series", "value"], panel.name
                assert all(isinstance(row["time"], datetime) for row in rows), panel.name
                assert [row["time"] for row in rows] == sorted(row["time"] for row in rows), panel.name
                points = [(row["time"], row["series"]) for row in rows]
                assert len(points) == len(set(points)), f"{panel.name}: two values for one point"


async def _rows(
    reader: asyncpg.Connection[asyncpg.Record], title: str, span: Span, chosen: Mapping[str, Sequence[str]]
) -> list[asyncpg.Record]:
    [panel] = [each for each in grafana.panels(SQL) if each.json["title"] == title]
    return await reader.fetch(grafana.sql(panel.targets[0]["rawSql"], span, chosen))
