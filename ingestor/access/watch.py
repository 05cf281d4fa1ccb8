"""Reads the file of keys again when it has changed, and keeps the keys that it knows when it can't.

It looks at the file's mark once a second, off the event loop; what it finds wrong it says once, and again as soon
as something else is wrong.
"""

from __future__ import annotations

import asyncio

from loguru import logger

from ingestor.access.file import KeysFile, KeysProblem, Mark
from ingestor.access.gate import Gate

INTERVAL_S = 1.0


class Watch:
    """`problem` says why the file's present content does not count, None when it does."""

    def __init__(self, file: KeysFile, gate: Gate) -> None:
        self.problem: str | None = None
        self._file = file
        self._gate = gate
        self._mark: Mark | None = None

    def begin(self) -> None:
        """Reads it for the first time. Without a file, or with an empty one, no keys are used. Raises
        KeysProblem."""
        found = self._file.read()
        if found is not None:
            self._mark, keys = found
            if keys.all:
                self._gate.use(keys)

    async def look_again(self) -> None:
        """Looks every second, until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Uses what has changed."""
        try:
            if await asyncio.to_thread(self._file.mark) == self._mark and self.problem is None:
                return
            found = await asyncio.to_thread(self._file.read)
        except KeysProblem as problem:
            self._keep(str(problem))
            return
        if found is None or not found[1].all:
            # Whoever wants no keys at all starts the server again: a slip must not open it to everybody.
            if self._gate.keys is not None:
                self._keep(f"{self._file.path} has no keys any more; to take one away, revoke it")
            return
        self._mark, keys = found
        self.problem = None
        self._gate.use(keys)
        logger.info("keys: {} valid ones in {}", self._gate.valid(), self._file.path)

    def _keep(self, problem: str) -> None:
        """Goes on with what is known."""
        if problem != self.problem:
            logger.error("the keys that are known stay in force: {}", problem)
        self.problem = problem
