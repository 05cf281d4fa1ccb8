"""Looks at files now and then, since keys and certificates are renewed while the server runs, and has those used
that have changed.

What can't be used replaces nothing: that is a problem, told once, until it is mended. Nothing that goes wrong with
a look is the watch's end: what is revoked later must not stay good for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from loguru import logger

from ingestor.errors import BadSetting
from ingestor.threads import apart

EVERY_S = 1.0
# A look that takes longer is told: until it ends, nothing that is revoked is noticed.
_SLOW_S = 10.0

ReadT = TypeVar("ReadT")
ResultT = TypeVar("ResultT")


class FileWatch(Generic[ReadT]):
    """`read` is called in a thread, since a file system may hang, and `use` on the event loop with what it found;
    both raise BadSetting for what can't be used. Then `kept` says in the log what stays, and `problem` is why,
    which may name the files and what is in them. `told` hears when some were used, and of each new problem."""

    def __init__(
        self,
        paths: Iterable[Path],
        read: Callable[[], ReadT],
        use: Callable[[ReadT], None],
        *,
        kept: str,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self.problem: str | None = None
        self._paths = tuple(paths)
        self._read = read
        self._use = use
        self._kept = kept
        self._told = told
        self._seen: list[tuple[int, ...] | None] = []

    def begin(self) -> ReadT:
        """Reads them for the first time, and leaves the use of it to who asks. Raises BadSetting."""
        self._seen = self._stamps()
        return self._read()

    async def keep(self, every_s: float = EVERY_S) -> None:
        """Looks so often, until it is cancelled. An end before that is a problem, too."""
        try:
            while True:
                await asyncio.sleep(every_s)
                await self.look()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an end must be seen, whatever it is; it is raised again
            self._fail(f"{self._names} is not looked at any more, start the server again: {error!r}")
            raise

    async def look(self) -> None:
        """Has them used if they have changed, or could not be used the last time."""
        try:
            await self._use_changes()
        except BadSetting as problem:
            self._fail(str(problem))
        except Exception as error:  # noqa: BLE001 - whatever a file system does, the next look may find a key revoked
            self._fail(f"{self._names} could not be looked at: {error!r}")

    async def _use_changes(self) -> None:
        """Raises BadSetting."""
        stamps = await self._aside(self._stamps)
        if stamps == self._seen and self.problem is None:
            return
        # Taken before they are read: what is written meanwhile is seen by the next look.
        self._seen = stamps
        self._use(await self._aside(self._read))
        self.problem = None
        self._tell()

    async def _aside(self, function: Callable[[], ResultT]) -> ResultT:
        """Called in a thread, for as long as it takes: one that hangs is a problem, and the next look waits for it,
        so that there is one at a time. Raises what it raises."""
        calling = apart(function)
        try:
            done, _ = await asyncio.wait({calling}, timeout=_SLOW_S)
            if not done:
                self._fail(f"{self._names} can't be looked at: that takes over {_SLOW_S:g} s")
            return await calling
        finally:
            calling.cancel()  # else nobody would hear of how it ends

    def _fail(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        logger.error("{}: {}", self._kept, problem)
        self._tell()

    def _tell(self) -> None:
        try:
            self._told()
        except Exception as error:  # noqa: BLE001 - who listens must not end what is listened to
            logger.opt(exception=error).error("a look at {} could not be told", self._names)

    @property
    def _names(self) -> str:
        return ", ".join(map(str, self._paths))

    def _stamps(self) -> list[tuple[int, ...] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Changes when the file does, or what its name stands for, or why it can't be looked at; None where there is
    none."""
    try:
        facts = path.stat()  # of what a link points to: that is what is exchanged when secrets are mounted
    except FileNotFoundError:
        return None
    except OSError as error:
        return (error.errno or 0,)
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
