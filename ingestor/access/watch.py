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
    """`problem` says why the file's present content does not count, None when it does. It may tell the file's path
    and what is in it: it is the operator's, not every caller's."""

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
        """Looks every second, until it is cancelled. An end before that is a problem, too."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_S)
                await self.look()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an end must be seen, whatever it is; it is raised again
            self._keep(f"{self._file.path} is not looked at any more, start the server again: {error!r}")
            raise

    async def look(self) -> None:
        """Uses what has changed. Whatever goes wrong is a problem to be told, and never the watch's end: a key that
        is revoked later must not stay good for ever."""
        try:
            await self._use_changes()
        except KeysProblem as problem:
            self._keep(str(problem))
        except Exception as error:  # noqa: BLE001 - whatever a file system does, the next look may find a key revoked
            self._keep(f"{self._file.path} could not be looked at: {error!r}")

    async def _use_changes(self) -> None:
        """Raises KeysProblem."""
        if await asyncio.to_thread(self._file.mark) == self._mark and self.problem is None:
            return
        found = await asyncio.to_thread(self._file.read)
        if found is None or not found[1].all:
            # Whoever wants no keys at all starts the server again: a slip must not open it to everybody.
            self._mark = None if found is None else found[0]
            if self._gate.keys is None:
                self.problem = None
            else:
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
