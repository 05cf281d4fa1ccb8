"""Measures how late the event loop runs what is due: a loop that something holds answers nobody.

It only looks every so often, and does nothing about it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# A stall as long as this is always seen; of shorter ones, so large a share of their time.
INTERVAL_S = 0.1


async def measure_lag(observe: Callable[[float], None], interval_s: float = INTERVAL_S) -> None:
    """Tells, over and over, by how many seconds a wake-up was late. Runs until it is cancelled."""
    while True:
        due_at = time.monotonic() + interval_s
        await asyncio.sleep(interval_s)
        # Timers are of whole milliseconds, and may go off a little early.
        observe(max(0.0, time.monotonic() - due_at))
