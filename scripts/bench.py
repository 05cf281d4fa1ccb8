"""Measures this server on this machine, beside the ceilings of the same run; prints tables and asserts nothing.

Steps of the bulk path, what transcoding adds to a handler written by hand, ingest end to end until everything is
committed (beside raw binary COPY of the same rows), single metrics (beside servers that only echo), latency at a
steady rate, and reading. Clients, server and database share the machine, so ratios within one run mean more than
figures: contenders alternate, and medians are shown.

On an embedded PostgreSQL, and where --timescale or INGESTOR_TEST_TIMESCALE_URL names a server, there too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import uvloop
from benchmarks import micro
from benchmarks.driving import Target, rate, steady
from benchmarks.durability import answered_steadily, synced_steadily
from benchmarks.end_to_end import SERVICE, cases, committed_per_second, copy_batches, raw_copy_per_second
from benchmarks.grpc_client import UnaryConnection
from benchmarks.http_client import HttpConnection
from benchmarks.loading import Beside, Load, beside, nothing
from benchmarks.processes import echo, embedded_server, fresh_database, ingestor
from benchmarks.querying import asking, filled, read
from benchmarks.tailing import stopped
from benchmarks.transcoding import costs
from benchmarks.workload import Workload
from rich.console import Console
from rich.table import Table

PARTS = ("steps", "transcoding", "bulk", "journal", "single", "latency", "query", "tail")
_UNARY_BODIES = 20_000
# A turn of a second for each of four handlers.
_TURN_REQUESTS, _TURNS_A_RUN = 8_000, 3
# Of the seconds of a run of single metrics: what is saved for queries, and what waits, must not decide.
_READING_TURNS = 3
# With room on disk more is sent than plain PostgreSQL stores, and costs the time to store it.
_JOURNAL = "memory"
_CONTENDERS = {
    "gRPC": ("stock grpclib echo", "grpcio.aio echo"),
    "HTTP": ("bare aiohttp echo",),
}
_ECHOES = {"stock grpclib echo": "grpclib", "grpcio.aio echo": "grpcio", "bare aiohttp echo": "aiohttp"}


def grpc_target(port: int, connections: int = 4, calls: int = 16) -> Target:
    """LogMetric over gRPC."""
    bodies = Workload(_UNARY_BODIES).log_metric()
    return Target(
        port, lambda heard: UnaryConnection(f"{SERVICE}/LogMetric", bodies, heard), connections, calls
    )


def http_target(port: int, connections: int = 64) -> Target:
    """LogMetric over HTTP."""
    bodies = Workload(_UNARY_BODIES).json_metric()
    return Target(port, lambda heard: HttpConnection("/v1/metrics", bodies, heard), connections, 1)


def steps(console: Console) -> None:
    """The cost of each step."""
    table = _table("steps of the bulk path, alone (microseconds a row)", "step", "no labels", "4 labels")
    for plain, labeled in zip(micro.costs(0), micro.costs(4), strict=True):
        table.add_row(labeled.step, f"{plain.us:.3f}", f"{labeled.us:.3f}")
    console.print(table)


async def transcoding(console: Console, options: argparse.Namespace) -> None:
    """What transcoding adds to LogMetric over HTTP, beside handlers that are written by hand."""
    table = _table(
        "LogMetric over HTTP into a memory queue, handlers in one process (microseconds a request)",
        "handler",
        "CPU time",
        "ours adds",
        "by the clock",
        "ours adds",
    )
    console.print("LogMetric over HTTP, transcoded and by hand ...")
    ours, *others = await costs(http_target, _TURN_REQUESTS, _TURNS_A_RUN * options.runs)
    table.add_row(ours.handler, f"{ours.cpu_us:.1f}", "", f"{ours.wall_us:.1f}", "")
    for each in others:
        added = (f"{ours.cpu_us - each.cpu_us:.1f}", f"{ours.wall_us - each.wall_us:.1f}")
        table.add_row(each.handler, f"{each.cpu_us:.1f}", added[0], f"{each.wall_us:.1f}", added[1])
    console.print(table)


async def bulk(console: Console, name: str, server: str, options: argparse.Namespace) -> None:
    """Ingest end to end beside raw COPY."""
    table = _table(
        f"until committed, {name} (metrics a second)", "case", "metrics/s", "raw COPY of these rows", "ratio"
    )
    for case in cases(options.rows):
        console.print(f"{name}: {case.name} ...")
        bodies = await asyncio.to_thread(case.bodies, case.workload)
        batches = await asyncio.to_thread(copy_batches, case.workload)
        ours, raw = await _alternating(
            options.runs,
            lambda case=case, bodies=bodies: committed_per_second(server, case, bodies),  # type: ignore[misc]
            lambda batches=batches: raw_copy_per_second(server, batches),  # type: ignore[misc]
        )
        table.add_row(case.name, f"{ours:,.0f}", f"{raw:,.0f}", f"{ours / raw:.2f}")
    console.print(table)


async def journal(console: Console, name: str, server: str, options: argparse.Namespace) -> None:
    """The disk journal beside the memory queue, end to end."""
    table = _table(
        f"until committed, {name} (metrics a second)", "case", "disk journal", "memory queue", "ratio"
    )
    for case in cases(options.rows)[:2]:
        console.print(f"{name}: {case.name}, both journals ...")
        bodies = await asyncio.to_thread(case.bodies, case.workload)
        disk, memory = await _alternating(
            options.runs,
            lambda case=case, bodies=bodies: committed_per_second(server, case, bodies),  # type: ignore[misc]
            lambda case=case, bodies=bodies: committed_per_second(server, case, bodies, JOURNAL="memory"),  # type: ignore[misc]
        )
        table.add_row(case.name, f"{disk:,.0f}", f"{memory:,.0f}", f"{disk / memory:.2f}")
    console.print(table)


async def safety(console: Console, server: str, options: argparse.Namespace) -> None:
    """What each acknowledgement costs a single metric, beside what the disk allows."""
    per_second, seconds = 1_000, 2 * options.seconds
    table = _table(
        f"latency at {per_second:,} LogMetric a second over gRPC (milliseconds)",
        "acknowledged",
        "p50",
        "p95",
        "p99",
    )
    console.print(f"acknowledgements at {per_second} calls a second ...")
    measured = {
        ack: await answered_steadily(server, grpc_target, per_second, seconds, ack)
        for ack in ("queued", "journaled", "committed")
    }
    measured["bare append and fdatasync"] = await synced_steadily(per_second, seconds)
    for what, answers in measured.items():
        shares = (answers.percentile_ms(share) for share in (0.5, 0.95, 0.99))
        table.add_row(what, *(f"{share:.2f}" for share in shares))
    console.print(table)


async def single(console: Console, server: str, options: argparse.Namespace) -> None:
    """Single metrics beside echoes."""
    table = _table(
        "single metrics (calls a second)", "protocol", "ours, storing", "beside", "calls/s", "ratio"
    )
    for protocol, contenders in _CONTENDERS.items():
        console.print(f"single metrics over {protocol} ...")
        target = grpc_target if protocol == "gRPC" else http_target

        async def ours(target: Callable[[int], Target] = target, number: int = protocol == "HTTP") -> float:
            async with fresh_database(server) as url, ingestor(url) as ports:
                return await rate(target(ports[number]), options.seconds)

        async def theirs(name: str, target: Callable[[int], Target] = target) -> float:
            async with echo(_ECHOES[name]) as port:
                return await rate(target(port), options.seconds)

        measured = await _alternating(
            options.runs,
            ours,
            *(lambda name=name: theirs(name) for name in contenders),
        )
        for name, calls in zip(contenders, measured[1:], strict=True):
            table.add_row(
                protocol, f"{measured[0]:,.0f}", name, f"{calls:,.0f}", f"{measured[0] / calls:.2f}"
            )
    console.print(table)


async def latency(console: Console, server: str, options: argparse.Namespace) -> None:
    """Latencies at a steady rate."""
    table = _table(
        "latency at a steady rate, open loop (milliseconds)", "calls/s", "protocol", "p50", "p95", "p99"
    )
    for per_second in (1_000, 3_000):
        for protocol, target in (("gRPC", grpc_target), ("HTTP", http_target)):
            console.print(f"{per_second} calls a second over {protocol} ...")
            async with fresh_database(server) as url, ingestor(url) as ports:
                port = ports[protocol == "HTTP"]
                answers = await steady(target(port), per_second, 2 * options.seconds)
            shares = (answers.percentile_ms(share) for share in (0.5, 0.95, 0.99))
            table.add_row(f"{per_second:,}", protocol, *(f"{share:.2f}" for share in shares))
    console.print(table)


async def query(console: Console, name: str, server: str, options: argparse.Namespace) -> None:
    """Reading, and what it costs those who store."""
    rows = options.stored
    case = cases(options.rows)[0]
    bodies = await asyncio.to_thread(case.bodies, case.workload)
    asked: dict[str, list[tuple[float, float]]] = {"both asked each second": [], "asked without a pause": []}
    table = _table(f"reading, {name}, {rows:,} rows of a week (milliseconds)", "question", "median")
    console.print(f"{name}: reading ...")
    async with filled(server, rows) as url:
        async with ingestor(url) as ports:
            found = await read(ports[1])
        table.add_row("a day of one series of 100, by the minute", f"{found.day_ms:.1f}")
        table.add_row("a page of the catalogue", f"{found.series_ms:.1f}")
        console.print(table)
        console.print(f"{name}: storing while both are asked ...")
        async with ingestor(url, JOURNAL=_JOURNAL) as ports:
            contenders: dict[str, Beside] = {"nobody reads": nothing}
            contenders |= {
                what: partial(asking, ports[1], pause_s, asked[what])
                for what, pause_s in zip(asked, (1.0, 0.0), strict=True)
            }
            loads = await beside(
                ports[1], case.target(ports, bodies), _seconds(options), options.runs, contenders
            )
    console.print(_beside_table(f"{case.name}, {name}", loads))
    table = _table("meanwhile (milliseconds)", "", "asked", "a day", "the catalogue")
    for what, took_s in asked.items():
        medians = (statistics.median(each) * 1e3 for each in zip(*took_s, strict=True))
        table.add_row(what, f"{len(took_s)}", *(f"{took_ms:.0f}" for took_ms in medians))
    console.print(table)


async def tail(console: Console, name: str, server: str, options: argparse.Namespace) -> None:
    """What readers of what is being stored cost, who have stopped reading."""
    case = cases(options.rows // 4)[0]
    bodies = await asyncio.to_thread(case.bodies, case.workload)
    console.print(f"{name}: tails ...")
    async with fresh_database(server) as url, ingestor(url, JOURNAL=_JOURNAL) as ports:
        contenders: dict[str, Beside] = {
            "nobody watches": nothing,
            "one has stopped reading": partial(stopped, ports[1], 1),
        }
        loads = await beside(
            ports[1], case.target(ports, bodies), _seconds(options), options.runs, contenders
        )
    console.print(_beside_table(f"{case.name}, {name}", loads))


def _seconds(options: argparse.Namespace) -> float:
    """How long each contender's turn is measured."""
    return _READING_TURNS * float(options.seconds)


def _beside_table(title: str, loads: Mapping[str, list[Load]]) -> Table:
    """The first is what the others are compared with."""
    first = next(iter(loads.values()))
    table = _table(
        f"{title}, committed (ratios: of the medians, least to most of {len(first)} pairs)",
        *("while", "metrics/s", "ratio", "CPU of the server (us a row)", "ratio", "memory (MB)"),
    )
    for what, each in loads.items():
        rates, costs_us = ([getattr(load, field) for load in each] for field in ("per_second", "cpu_us"))
        table.add_row(
            what,
            f"{statistics.median(rates):,.0f}",
            _ratios(rates, [load.per_second for load in first]),
            f"{statistics.median(costs_us):.3f}",
            _ratios(costs_us, [load.cpu_us for load in first]),
            f"{max(load.memory_bytes for load in each) / 1e6:.0f}",
        )
    return table


def _ratios(ours: list[float], theirs: list[float]) -> str:
    """Of pairs: the median's, and how they spread."""
    pairs = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    return f"{statistics.median(ours) / statistics.median(theirs):.3f} ({pairs[0]:.3f} to {pairs[-1]:.3f})"


async def _alternating(runs: int, *contenders: Callable[[], Awaitable[float]]) -> list[float]:
    """Each contender's median, with the machine's moods shared out among them."""
    measured: list[list[float]] = [[] for _ in contenders]
    for _ in range(runs):
        for results, contender in zip(measured, contenders, strict=True):
            results.append(await contender())
    return [statistics.median(results) for results in measured]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


async def bench(options: argparse.Namespace) -> None:
    """Runs the chosen parts."""
    console = Console()
    if "steps" in options.only:
        steps(console)
    if "transcoding" in options.only:
        await transcoding(console, options)
    if set(options.only) <= {"steps", "transcoding"}:
        return
    async with embedded_server() as embedded:
        for name, server in {"embedded PostgreSQL": embedded, "TimescaleDB": options.timescale}.items():
            for part, measure in {"bulk": bulk, "query": query, "tail": tail}.items():
                if part in options.only and server:
                    await measure(console, name, server, options)
        server = options.timescale or embedded
        if "journal" in options.only:
            await journal(
                console, "TimescaleDB" if options.timescale else "embedded PostgreSQL", server, options
            )
            await safety(console, server, options)
        if "single" in options.only:
            await single(console, server, options)
        if "latency" in options.only:
            await latency(console, server, options)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run (all)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of a bulk run (2000000)")
    parser.add_argument("--stored", type=int, default=10_000_000, help="rows to read from (10000000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a run of single metrics (3)")
    parser.add_argument(
        "--timescale",
        default=os.environ.get("INGESTOR_TEST_TIMESCALE_URL", ""),
        metavar="URL",
        help="a TimescaleDB server whose user may create databases (INGESTOR_TEST_TIMESCALE_URL)",
    )
    try:
        uvloop.run(bench(parser.parse_args()))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
