"""Keeps Python's collector of cyclic garbage from standing in the way of a server.

Collecting the oldest generation looks at every container there is: with 200,000 metrics waiting for the database
all calls stood still for 160 ms, again and again, and nothing was found, since what waits holds no cycles. So what
starting has made is taken out of the collector's sight; the young generations, where nearly all garbage is, are
collected as ever, if in larger portions; and the oldest one by us, when little is waiting.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from loguru import logger

# Allocations that start a collection of the youngest generation: some 0.3 ms each time.
_YOUNG, _MIDDLE, _OLD = 5_000, 20, 1_000_000
_EVERY_S = 30.0
# A collection then takes a few milliseconds.
_FEW_ENTRIES = 5_000
# With more than that waiting for so long, it is time all the same.
_AT_LEAST_EVERY = 40


@asynccontextmanager
async def collected_aside(held_entries: Callable[[], int], every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Within it, the oldest generation is collected every `every_s` seconds, as long as `held_entries()` are few.
    To be entered when all has been started."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
    collector = asyncio.create_task(_collect(held_entries, every_s), name="garbage-collector")
    try:
        yield
    finally:
        collector.cancel()
        with suppress(asyncio.CancelledError):
            await collector
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _collect(held_entries: Callable[[], int], every_s: float) -> None:
    skipped = 0
    while True:
        await asyncio.sleep(every_s)
        if held_entries() > _FEW_ENTRIES and skipped < _AT_LEAST_EVERY:
            skipped += 1
            continue
        skipped = 0
        found = gc.collect()
        logger.trace("collected {} objects in cycles", found)
