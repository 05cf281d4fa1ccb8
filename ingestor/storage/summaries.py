"""Keeps the summaries near by which queries pass over blocks without their series: they read whatever is in none.

Autovacuum would make them in the end. It takes half of the time at most, and rests where nothing is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from loguru import logger

from ingestor.errors import StorageError

_EVERY_S, _FOR_READERS_S = 5.0, 0.5
# Most of what it takes is for new rows, which only become more meanwhile.
_SHARE = 0.5


class Summaries:
    """`summarize` covers what was stored lately, which is told by `stored_to`: it moves with whatever is stored."""

    def __init__(
        self,
        summarize: Callable[[], Awaitable[None]],
        stored_to: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._summarize = summarize
        self._stored_to = stored_to
        self._clock = clock
        self._sleep = sleep
        self._asked = asyncio.Event()
        self._summarized_to: int | None = None
        self._rest_s = 0.0

    def asked(self) -> None:
        """Somebody queries, and will again: sooner than otherwise."""
        self._asked.set()

    async def keep(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            await self._sleep(max(_FOR_READERS_S, self._rest_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._asked.wait()
            self._asked.clear()
            await self.look()

    async def look(self) -> None:
        """Summarizes what is new, if anything is."""
        stored_to = self._stored_to()
        if stored_to == self._summarized_to:
            return
        began_s = self._clock()
        try:
            await self._summarize()
        except StorageError as error:
            logger.debug("what was stored lately is in no summary yet: {}", error)
        else:
            self._summarized_to = stored_to
        self._rest_s = (self._clock() - began_s) / _SHARE
