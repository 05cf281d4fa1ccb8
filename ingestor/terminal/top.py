"""`ingestor top`: rates, latency and depth of a gateway, and its services, again and again; once where nobody can
watch.

It shows what the server says of itself, and keeps asking a server that went away while it watched.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ingestor.errors import ServerProblem
from ingestor.output import writing
from ingestor.terminal import format as told
from ingestor.terminal.client import Client, connected
from ingestor.terminal.readings import Between, Labels, Reading

_WINDOW = 5  # readings: rates are those of the last few, or they would jump
_SERVICES = "ingestor_service_metrics_committed_total"
_SERVICES_SHOWN = 15
_ANY_WIDTH = 1_000
_TAKING = ("/LogMetric", "/LogMetrics", "/WriteSeries")
_WAIT_S_MAX = 30.0
_DOUBLINGS_MAX = 16  # of the wait, which they make as long as it may be
_COLOURS = {"ready": "green", "degraded": "yellow"}


async def top(address: str, key: str | None, every_s: float) -> int:
    """Shows the gateway at this address until it is cancelled; once when stdout is no terminal. Raises
    ServerProblem when it can't be reached at first, StartupError when nothing can be written, and BadSetting."""
    console = Console()
    async with connected(address, key) as client:
        readings = deque([await _read(client)], maxlen=_WINDOW)
        await asyncio.sleep(min(every_s, 1.0))
        if not console.is_terminal:
            readings.append(await _read(client))
            shown = _shown(client, await _health(client), _between(readings), console)
            with writing():
                console.print(shown)
            return 0
        with writing(), Live(console=console, screen=True, auto_refresh=False) as live:
            await _watch(client, readings, live, every_s)
    return 0


async def _watch(client: Client, readings: deque[Reading], live: Live, every_s: float) -> None:
    failures = 0
    while True:
        try:
            readings.append(await _read(client))
            shown = _shown(client, await _health(client), _between(readings), live.console)
            live.update(shown, refresh=True)
            failures = 0
        except ServerProblem as problem:
            failures += 1
            live.update(Text(f"{problem}\nIt is tried again; Ctrl-C ends this.", style="red"), refresh=True)
        await asyncio.sleep(_wait_s(every_s, failures))


def _wait_s(every_s: float, failures: int) -> float:
    return min(every_s * 2.0 ** min(failures, _DOUBLINGS_MAX), max(_WAIT_S_MAX, every_s))


async def _read(client: Client) -> Reading:
    text = await client.text("metrics")
    try:
        return Reading.of(text, time.monotonic())
    except ValueError as error:
        raise ServerProblem(client.address, f"does not speak as an ingestor does: {error}") from error


async def _health(client: Client) -> dict[str, Any]:
    try:
        health: dict[str, Any] = json.loads(await client.text("readyz", also=503))
    except ValueError as error:
        raise ServerProblem(client.address, f"does not speak as an ingestor does: {error}") from error
    return health


def _between(readings: deque[Reading]) -> Between:
    return Between(readings[0], readings[-1])


def _shown(client: Client, health: dict[str, Any], between: Between, console: Console) -> RenderableType:
    status = str(health.get("status"))
    head = Text.assemble(
        ("ingestor", "bold"), f" at {client.address}  ", (status, _COLOURS.get(status, "red")), "\n"
    )
    checks: dict[str, str] = health.get("checks", {})
    reasons = [
        Text(told.plain(f"{name}: {said}") + "\n", style="yellow")
        for name, said in checks.items()
        if said != "ok"
    ]
    return Group(head, *reasons, _figures(between, console), Text(), _services(between))


def _figures(between: Between, console: Console) -> Table:
    """Two beside each other where there is room for them, else one below the other."""

    def now(name: str) -> float | None:
        return between.after.total(name)

    def latency(name: str, *, calls: bool = False) -> str:
        p50, p99 = (between.quantile(name, q, *([_taking] if calls else [])) for q in (0.5, 0.99))
        return "none" if p50 is None else f"p50 {told.seconds(p50)}  p99 {told.seconds(p99)}"

    journal_max = now("ingestor_journal_bytes_max")
    journal = (
        f"{told.size(now('ingestor_journal_bytes'))} of {told.size(journal_max)}" if journal_max else "memory"
    )
    rows = (
        ("committed", told.rate(between.per_second("ingestor_metrics_committed_total"))),
        ("acknowledged in", latency("ingestor_rpc_seconds", calls=True)),
        ("received", told.rate(between.per_second("ingestor_metrics_received_total"))),
        ("flushed in", latency("ingestor_flush_seconds")),
        ("waiting", told.count(now("ingestor_metrics_pending"))),
        ("oldest", told.seconds(now("ingestor_queue_oldest_age_seconds"))),
        ("failed calls", told.rate(between.per_second("ingestor_rpc_total", _failed))),
        ("journal", journal),
        ("dead letters", told.count(now("ingestor_metrics_dead_lettered_total"))),
        ("refused", told.count(now("ingestor_metrics_refused_total"))),
    )
    beside = _table([(*left, *right) for left, right in zip(rows[::2], rows[1::2], strict=True)], padding=3)
    wanted = Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), beside).maximum
    return beside if wanted <= console.width else _table(rows, padding=1)


def _table(rows: Sequence[Sequence[str]], padding: int) -> Table:
    """Labels and figures in turn."""
    table = Table.grid(padding=(0, padding))
    for style in ("dim", "bold", "dim", "")[: len(rows[0])]:
        table.add_column(style=style, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _services(between: Between) -> RenderableType:
    # A service that was not there had sent nothing.
    known = {labels["service"]: count for labels, count in between.before.samples.get(_SERVICES, ())}
    seconds = between.after.at_s - between.before.at_s
    rates = [
        (max(0.0, count - known.get(labels["service"], 0.0)) / seconds, labels["service"] or "(all others)")
        for labels, count in between.after.samples.get(_SERVICES, ())
        if count
    ]
    if not rates:
        return Text("No service's metrics were stored since this gateway's start.", style="dim")
    total = sum(per_s for per_s, _ in rates)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    # What wraps is narrowed first: a name may be cut, a figure not.
    table.add_column("service")
    table.add_column("committed", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for per_s, name in sorted(rates, key=lambda each: (-each[0], each[1]))[:_SERVICES_SHOWN]:
        table.add_row(
            Text(told.plain(name), no_wrap=True, overflow="ellipsis"),
            told.rate(per_s),
            f"{per_s / total:.0%}" if total else "-",
        )
    return table


def _taking(labels: Labels) -> bool:
    """Calls that take metrics; a stream of batches is one call, however long."""
    return labels["rpc"].endswith(_TAKING)


def _failed(labels: Labels) -> bool:
    return labels["code"] not in ("OK", "CANCELLED")
