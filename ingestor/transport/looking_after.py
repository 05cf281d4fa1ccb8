"""Looks after the connections of one server, now and then, so that no call needs timers for that.

It decides nothing: each connection knows how long it waits for what.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from loguru import logger

_TICK_S_MAX = 1.0
# A tick is late by a quarter of the shortest time at most.
_TICKS = 4
# In one turn of the event loop; some 0.3 ms.
_AT_ONCE = 100


class LookedAfter(Protocol):
    """A connection."""

    def check(self, now: float) -> None:
        """Does what is due by this moment of `time.monotonic`."""


async def look_after(connections: Callable[[], Iterable[LookedAfter]], shortest_s: float) -> None:
    """Checks them all, for ever; `shortest_s` is the shortest time that matters to any."""
    while True:
        await asyncio.sleep(min(_TICK_S_MAX, shortest_s / _TICKS))
        for number, connection in enumerate(tuple(connections()), 1):
            try:
                connection.check(time.monotonic())
            except Exception:  # noqa: BLE001 - one connection's fault must not leave all others alone
                logger.exception("a connection could not be looked after")
            if not number % _AT_ONCE:
                await asyncio.sleep(0)
