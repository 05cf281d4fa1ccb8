"""`ingestor demo`: the main job, watched. A server on a temporary database, a load from outside over both
protocols, and what the database then holds; then, if it is to stay, a gentle load for the page to show.

It fails unless what was acknowledged and what is stored agree, and it leaves nothing running or behind.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ingestor.app import App
from ingestor.demo_load import send_for_ever
from ingestor.ending import to_its_end
from ingestor.errors import AddressProblem
from ingestor.fronts import Addresses
from ingestor.settings import EMBEDDED, Settings, alone
from ingestor.storage.database import Database
from ingestor.telemetry import logs

_HOST = "127.0.0.1"
USUAL_PORTS: tuple[int, int] = (
    Settings.model_fields["grpc_port"].default,
    Settings.model_fields["http_port"].default,
)
_DISAGREE = 1
_BATCH = 100
_LABELS = 2
_ROWS_SHOWN = 5
_STORED = "SELECT count(*) FROM metrics"
_LATEST = """
SELECT to_char(m.time AT TIME ZONE 'UTC', 'HH24:MI:SS.MS') AS time,
       m.service_name, m.metric_name, m.value,
       (SELECT string_agg(l.key || '=' || l.value, ' ' ORDER BY l.key) FROM jsonb_each_text(m.labels) AS l)
  FROM labeled_metrics AS m ORDER BY m.time DESC, m.value DESC LIMIT $1
"""


async def demo(metrics: int, *, stay: bool = False) -> int:
    """Sends that many metrics and shows what became of them; `stay`: then goes on until it is cancelled. Returns
    the exit code; raises StartupError."""
    logs.configure("text", "WARNING")
    console = Console()
    # Its own directory, so that nothing else of this machine is touched; open to the user that PostgreSQL
    # runs as when we are root.
    with tempfile.TemporaryDirectory(prefix="ingestor-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # noqa: ASYNC240 - once, before anything runs
        return await _in_folder(folder, metrics, console, stay=stay)


async def _in_folder(folder: Path, metrics: int, console: Console, *, stay: bool) -> int:
    console.print("Starting a server on a PostgreSQL of its own ...")
    app, addresses = await _started(folder, usual_ports=stay)
    try:
        database = app.database
        assert database is not None  # an embedded one is there, or the start has failed
        console.print(
            f"It serves gRPC on {addresses.host}:{addresses.grpc_port} and HTTP on"
            f" http://{addresses.host}:{addresses.http_port}, and stores in {database.facts}."
        )
        console.print(f"Sending {metrics:,} metrics over gRPC and over HTTP/JSON ...\n")
        report = await _send(folder / "report.json", addresses, app.database_url, metrics)
        if report is None:
            console.print("[red]The load generator failed; see above.[/red]")
            return _DISAGREE
        code = await _show(report, database, console, metrics)
        if stay and code == 0:
            await _stay(addresses, console)
        return code
    finally:
        await to_its_end(app.stop())


async def _started(folder: Path, *, usual_ports: bool) -> tuple[App, Addresses]:
    """On ports that are free; `usual_ports`: on those of a server, by which the README calls it, where they are."""
    ports = USUAL_PORTS if usual_ports and all(map(free, USUAL_PORTS)) else (0, 0)
    try:
        app = App(_settings(folder, ports))
        return app, await app.start()
    except AddressProblem:  # somebody was faster
        app = App(_settings(folder, (0, 0)))
        return app, await app.start()


def _settings(folder: Path, ports: tuple[int, int]) -> Settings:
    """Nothing from the environment: a queue that is small or a wait that is short would be another demo."""
    return alone(
        {
            "database_url": EMBEDDED,
            "data_dir": folder / "data",
            "host": _HOST,
            "grpc_port": ports[0],
            "http_port": ports[1],
        }
    )


def free(port: int) -> bool:
    """Whether it can be listened on."""
    with socket.socket() as trial, suppress(OSError):
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((_HOST, port))
        return True
    return False


async def _stay(addresses: Addresses, console: Console) -> None:
    """Goes on until it is cancelled, which is how it is meant to end."""
    page = f"http://{addresses.host}:{addresses.http_port}/"
    if (addresses.grpc_port, addresses.http_port) != USUAL_PORTS:
        console.print("\nIts ports are not the usual ones, which are taken: mind that in what you paste.")
    body = json.dumps({"serviceName": "checkout", "metricName": "latency_ms", "value": 12.5})
    console.print("\nTo see a value of your own there:")
    console.print(f"curl -d '{body}' {page}v1/metrics", soft_wrap=True, markup=False)
    console.print(f"\nThe page is at {page} and a gentle load goes on. Ctrl-C ends both.", soft_wrap=True)
    with suppress(asyncio.CancelledError):
        await send_for_ever(addresses.host, addresses.grpc_port)
    console.print("Stopping ...")


async def _send(target: Path, addresses: Addresses, database_url: str, metrics: int) -> dict[str, Any] | None:
    """Runs the load generator as a process of its own, as a client would be; None if it failed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ingestor.loadgen", "--protocol", "both"),
        *("--grpc", f"{addresses.host}:{addresses.grpc_port}"),
        *("--http", f"http://{addresses.host}:{addresses.http_port}"),
        *("--count", str(metrics), "--batch", str(_BATCH), "--labels", str(_LABELS)),
        *("--json", str(target), "--verify", database_url),
        start_new_session=True,  # a Ctrl-C is for us, who end it, and not for both at once
    )
    try:
        code = await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    # 1: not all that was acknowledged is stored, which the report says better.
    if code not in (0, 1) or not await asyncio.to_thread(target.exists):
        return None
    report: dict[str, Any] = json.loads(await asyncio.to_thread(target.read_text))
    return report


async def _show(report: dict[str, Any], database: Database, console: Console, metrics: int) -> int:
    accepted = report["report"]["total"]["acknowledged"]
    async with database.transactions.transaction() as connection:
        stored = await connection.fetchval(_STORED)
        latest = await connection.fetch(_LATEST, _ROWS_SHOWN)
    table = Table(
        title=f"The latest {len(latest)} of {stored:,} rows (labeled_metrics)", title_justify="left"
    )
    for column in ("time", "service_name", "metric_name", "value", "labels"):
        table.add_column(column, overflow="fold", no_wrap=column == "time")
    for row in latest:
        table.add_row(*(str(field) for field in row))
    console.print(table)
    agree = stored == accepted and report["verification"]["ok"]
    verdict = "[green]every accepted metric is stored exactly once.[/green]"
    if not agree:
        verdict = "[red]they disagree.[/red]"
    elif accepted != metrics:
        verdict = f"[red]{metrics:,} were sent.[/red]"
    console.print(f"Accepted {accepted:,}, stored {stored:,}: {verdict}")
    return 0 if agree and accepted == metrics else _DISAGREE
