"""A server under as much load as it takes, for a set time: what is committed a second, and what that costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from benchmarks.driving import rate
from benchmarks.end_to_end import Case

# Until the queue is as full as it gets, and what was saved for queries is used up.
_WARM_UP_S = 3.0


@dataclass(frozen=True)
class Load:
    """Rows committed a second, microseconds of the server's CPU for each, and its memory in bytes."""

    per_second: float
    cpu_us: float
    memory_bytes: float


async def loaded(
    ports: tuple[int, int],
    case: Case,
    bodies: list[bytes],
    seconds: float,
    warm: Callable[[], object] = bool,
) -> Load:
    """Sends the bodies over and over; `warm` is called as measuring begins. Raises RuntimeError for a failure."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{ports[1]}") as http:
        sending = asyncio.create_task(rate(case.target(ports, bodies), seconds + _WARM_UP_S))
        await asyncio.sleep(_WARM_UP_S)
        before, began = await _read(http), time.perf_counter()
        warm()
        await asyncio.sleep(seconds)
        after, took_s = await _read(http), time.perf_counter() - began
        await sending
    rows = after["ingestor_metrics_committed_total"] - before["ingestor_metrics_committed_total"]
    cpu_s = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return Load(rows / took_s, cpu_s / rows * 1e6, after["process_resident_memory_bytes"])


async def _read(http: aiohttp.ClientSession) -> dict[str, float]:
    """The server's metrics that have no labels."""
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}
