"""Keeps the summaries near by which queries pass over blocks without their series: they read whatever is in none.

Autovacuum would make them in the end. It takes a tenth of the time at most, rests where nothing is stored, and does
not insist where it fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from loguru import logger

from ingestor.errors import SchemaProblem, StorageError, StorageUnavailable

_EVERY_S, _FOR_READERS_S = 5.0, 0.5
# It takes longer the more there is, not only what is new.
_SHARE = 0.1
_TIMEOUT_S = 30.0
# What failed for a while may soon be mended; anything else hardly by itself.
_UNAVAILABLE_S, _FAILED_S = 5.0, 60.0


class Summaries:
    """`summarize` covers what was stored lately, which is told by `stored_to`: it moves with whatever is stored."""

    def __init__(
        self,
        summarize: Callable[[], Awaitable[None]],
        stored_to: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        self._summarize = summarize
        self._stored_to = stored_to
        self._clock = clock
        self._sleep = sleep
        self._timeout_s = timeout_s
        self._asked = asyncio.Event()
        self._summarized_to: int | None = None
        self._rest_s = 0.0
        self._warned = False

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
        self._rest_s = least_s = 0.0
        stored_to = self._stored_to()
        if stored_to == self._summarized_to:
            return
        began_s = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._summarize()
        except StorageError as error:
            self._tell(error)
            least_s = _UNAVAILABLE_S if isinstance(error, StorageUnavailable) else _FAILED_S
        except TimeoutError:
            self._tell(StorageUnavailable(f"it took longer than {self._timeout_s:g} s"))
            least_s = _FAILED_S
        else:
            self._summarized_to, self._warned = stored_to, False
        self._rest_s = max(least_s, (self._clock() - began_s) * (1 - _SHARE) / _SHARE)

    def _tell(self, error: StorageError) -> None:
        """Loudly what somebody has to mend, and that once: queries are slower meanwhile, but nothing is lost."""
        loud = isinstance(error, SchemaProblem) and not self._warned
        self._warned |= loud
        log = logger.warning if loud else logger.debug
        log("what was stored lately is in no summary yet, so queries read more: {}", error)
