"""A held event loop shows as lag."""

from __future__ import annotations

import asyncio
import time

import pytest

from ingestor.app import App
from ingestor.errors import StartupError
from ingestor.settings import load
from ingestor.telemetry import measure_lag
from tests.gateway import gateway


async def test_a_stall_is_seen_with_its_length() -> None:
    """A stall longer than the interval by what it is longer, at least."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.create_task(measure_lag(seen.put_nowait, interval_s=0.01))
    assert await seen.get() >= 0
    time.sleep(0.2)
    assert await seen.get() >= 0.18
    task.cancel()


async def test_it_is_measured_as_long_as_the_app_runs(database_url: str) -> None:
    """From the start to the stop, whoever asks."""
    async with gateway(database_url) as running:
        while not running.count("ingestor_event_loop_lag_seconds_count"):
            await asyncio.sleep(0.01)
        await running.app.stop()
        await asyncio.sleep(0)
        assert "loop-lag" not in [task.get_name() for task in asyncio.all_tasks()]


async def test_a_start_that_fails_ends_it() -> None:
    """With all else that was started."""
    app = App(load({"database_url": "postgresql://127.0.0.1:1/none", "journal": "memory", "grpc_port": 0}))
    with pytest.raises(StartupError):
        await app.start()
    await asyncio.sleep(0)
    assert "loop-lag" not in [task.get_name() for task in asyncio.all_tasks()]
