"""Measures ingest end to end on this machine, against its ceiling: binary COPY of the same kind of rows.

A server process on a temporary embedded database, the load generator in this one; prints a table and asserts
nothing. Ratios within one run mean more than figures across runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

from ingestor.loadgen import LoadPlan, run
from ingestor.storage.database import open_database
from ingestor.storage.embedded import EmbeddedPostgres

COLUMNS = ("time", "service_name", "metric_name", "value")
CASES = {
    "LogMetric, gRPC": {"protocol": "grpc", "batch": 1, "count": 20_000, "streams": 16},
    "LogMetric, HTTP": {"protocol": "http", "batch": 1, "count": 20_000, "connections": 64},
    "LogMetrics of 1,000, gRPC": {"protocol": "grpc", "batch": 1_000, "count": 500_000},
    "LogMetrics of 1,000, 4 labels, gRPC": {
        "protocol": "grpc",
        "batch": 1_000,
        "count": 200_000,
        "labels": 4,
    },
    "LogMetrics of 1,000, JSON": {"protocol": "http", "batch": 1_000, "count": 100_000},
}


async def raw_copy(url: str, rows: int = 500_000) -> float:
    """Rows a second that the server takes by asyncpg's binary COPY from tuples made beforehand."""
    start = datetime.now(UTC)
    records = [
        (start + timedelta(microseconds=n), f"service-{n % 10}", f"metric_{n % 97}", float(n))
        for n in range(rows)
    ]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT ensure_metrics_partition(date_trunc('week', now(), 'UTC'))")
        began = time.perf_counter()
        await connection.copy_records_to_table("metrics", records=records, columns=COLUMNS)
        return rows / (time.perf_counter() - began)
    finally:
        await connection.close()


@asynccontextmanager
async def server(database_url: str) -> AsyncIterator[tuple[int, int]]:
    """`ingestor serve` as a process of its own, on free ports; stopped in the end."""
    settings = {"DATABASE_URL": database_url, "GRPC_PORT": "0", "HTTP_PORT": "0", "LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ingestor", "serve"),
        env={**os.environ, **{f"INGESTOR_{name}": value for name, value in settings.items()}},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async for line in process.stderr:
            logged = json.loads(line)
            if "grpc_port" in logged:
                yield logged["grpc_port"], logged["http_port"]
                break
    finally:
        process.terminate()
        await process.communicate()


async def stored(url: str, rows: int) -> None:
    """Waits until the table has that many rows."""
    connection = await asyncpg.connect(url)
    try:
        while await connection.fetchval("SELECT count(*) FROM metrics") < rows:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def measure(url: str, options: dict[str, object]) -> tuple[float, float, float]:
    """Metrics a second until the last is committed, and the latencies p50 and p99 in milliseconds."""
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE metrics")
    await connection.close()
    async with server(url) as (grpc_port, http_port):
        targets = {"grpc": f"127.0.0.1:{grpc_port}", "http": f"http://127.0.0.1:{http_port}"}
        plan = LoadPlan.model_validate({**targets, **options, "retries": 10})
        began = time.perf_counter()
        report = await run(plan)
        await stored(url, report.total.acknowledged)
        seconds = time.perf_counter() - began
    latency = report.total.latency
    assert latency is not None, report.messages
    return report.total.acknowledged / seconds, latency.p50_ms, latency.p99_ms


async def bench(console: Console) -> None:
    """Runs every case once and prints the table."""
    table = Table(title="until committed; load generator and database share the machine")
    for name in ("case", "metrics/s", "of raw COPY", "p50 ms", "p99 ms"):
        table.add_column(name, justify="left" if name == "case" else "right")
    with tempfile.TemporaryDirectory(prefix="ingestor-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)  # noqa: ASYNC240 - once, before anything runs
        postgres = EmbeddedPostgres(Path(name) / "data")
        url = await postgres.start()
        try:
            await (await open_database(url)).close(5)
            ceiling = await raw_copy(url)
            table.add_row("raw binary COPY, one connection", f"{ceiling:,.0f}", "1.00", "", "")
            for case, options in CASES.items():
                console.print(f"{case} ...")
                rate, p50, p99 = await measure(url, dict(options))
                table.add_row(case, f"{rate:,.0f}", f"{rate / ceiling:.2f}", f"{p50:.1f}", f"{p99:.1f}")
        finally:
            await postgres.stop()
    console.print(table)


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    uvloop.run(bench(Console()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
