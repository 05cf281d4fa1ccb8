"""What transcoding adds to a request: our HTTP side beside a handler that is written by hand, in one process.

CPU time of the server's process counts, which says more than the clock where clients share the machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.driving import Target, until_answered


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a request, medians of some rounds: the server's CPU time, and by the clock, where the clients
    take their share."""

    handler: str
    cpu_us: float
    wall_us: float


async def costs(target: Callable[[int], Target], requests: int, rounds: int) -> list[Cost]:
    """Those of each of `handlers`, which take turns, `requests` a turn, after one that doesn't count."""
    measured: dict[str, list[tuple[float, float]]] = {}
    async with _serving() as (pid, ports):
        for turn in range(rounds + 1):
            for handler, port in ports.items():
                cost = await _cost(pid, target(port), requests)
                if turn:
                    measured.setdefault(handler, []).append(cost)
    return [
        Cost(handler, *(statistics.median(each) * 1e6 for each in zip(*found, strict=True)))
        for handler, found in measured.items()
    ]


async def _cost(pid: int, target: Target, requests: int) -> tuple[float, float]:
    cpu_s = _cpu_s(pid)
    latencies_s = (await until_answered(target, requests)).latencies_s
    # Each connection always has one in flight: so the latencies of all are the time of all connections.
    return (_cpu_s(pid) - cpu_s) / len(latencies_s), statistics.mean(latencies_s) / target.connections


def _cpu_s(pid: int) -> float:
    """The CPU time of another process, by Linux' clock of it (clock_getcpuclockid(3)); to the nanosecond, where
    /proc has hundredths of a second."""
    return time.clock_gettime(~pid << 3 | 2)


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[int, dict[str, int]]]:
    program = Path(__file__).with_name("handlers.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = await process.stdout.readline()
        if not said:
            msg = "the server to measure did not start"
            raise RuntimeError(msg)
        yield process.pid, json.loads(said)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
