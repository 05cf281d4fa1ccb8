"""A server under as much load as it takes, while this and that goes on beside it: what is committed a second, and
what that costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp

from benchmarks.driving import Target, rate

# Until the queue is as full as it gets, and what was saved for queries is used up.
_SETTLE_S = 5.0
# For what a turn takes beside that: to begin, to end, and to ask a busy server for its metrics.
_SLACK_S = 1.0
Beside: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]


@dataclass(frozen=True)
class Load:
    """Rows committed a second, microseconds of the server's CPU for each, and its memory in bytes."""

    per_second: float
    cpu_us: float
    memory_bytes: float


def nothing() -> AbstractAsyncContextManager[object]:
    """Beside which nothing goes on."""
    return nullcontext()


async def beside(
    http_port: int, target: Target, seconds: float, turns: int, contenders: dict[str, Beside]
) -> dict[str, list[Load]]:
    """Sends what the target has over and over; what goes on meanwhile changes every so many seconds, there and
    back, so that all have one server, one table and the machine's moods in common. Raises RuntimeError for a
    failure."""
    loads: dict[str, list[Load]] = {name: [] for name in contenders}
    lasting_s = turns * len(contenders) * (_SETTLE_S + seconds + _SLACK_S) + 2 * _SETTLE_S
    async with aiohttp.ClientSession(f"http://127.0.0.1:{http_port}") as http:
        sending = asyncio.create_task(rate(target, lasting_s))
        try:
            await asyncio.sleep(_SETTLE_S)
            for turn in range(turns):
                for name in list(contenders) if turn % 2 else reversed(contenders):
                    async with contenders[name]():
                        await asyncio.sleep(_SETTLE_S)
                        load = await _measured(http, seconds)
                    if sending.done():
                        await sending  # raises what it failed of
                        msg = f"the load ended after {lasting_s:g} s, before all was measured"
                        raise RuntimeError(msg)
                    loads[name].append(load)
            await sending
        finally:
            sending.cancel()
            await asyncio.wait({sending})
    return loads


async def _measured(http: aiohttp.ClientSession, seconds: float) -> Load:
    before, began = await _read(http), time.perf_counter()
    await asyncio.sleep(seconds)
    after, took_s = await _read(http), time.perf_counter() - began
    rows = after["ingestor_metrics_committed_total"] - before["ingestor_metrics_committed_total"]
    cpu_s = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return Load(rows / took_s, cpu_s / max(rows, 1) * 1e6, after["process_resident_memory_bytes"])


async def _read(http: aiohttp.ClientSession) -> dict[str, float]:
    """The server's metrics that have no labels."""
    async with http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}
