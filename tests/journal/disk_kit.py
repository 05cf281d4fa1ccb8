"""A disk journal on a log that a test can brake, and break."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestor.journal import DiskJournal, QueueLimits, RequestIds
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from tests.journal.contract import limits

MIB = 1024**2


def _kernel_syncs() -> bool:
    """Whether this system gives asynchronous I/O to whoever asks for it; some sandboxes don't."""
    setup, destroy = {"x86_64": (206, 207), "aarch64": (0, 1)}.get(platform.machine(), (0, 0))
    if platform.system() != "Linux" or not destroy:
        return False
    context, call = ctypes.c_ulong(0), ctypes.CDLL(None).syscall
    given = call(ctypes.c_long(setup), ctypes.c_long(1), ctypes.byref(context)) == 0
    return bool(given and call(ctypes.c_long(destroy), context) == 0)


needs_kernel = pytest.mark.skipif(
    not _kernel_syncs(), reason="needs Linux's asynchronous I/O, on x86_64 or aarch64 (io_setup(2))"
)


class Brakes:
    """A log whose writes can be held, or made to fail. `room`, when it is set, is how much it says it may still
    take (negative: it can't say), and `looking` holds that up; `unreadable` reads fail."""

    def __init__(self, log: SegmentLog) -> None:
        self._log = log
        self.go = asyncio.Event()
        self.go.set()
        self.failures: list[Exception] = []
        self.appends = self.skipped = self.unreadable = 0
        self.room: int | None = None
        self.looks = 0
        self.looking: asyncio.Event | None = None
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, records: Any) -> None:
        self.appends += 1
        asyncio.run_coroutine_threadsafe(self.go.wait(), self._loop).result()
        if self.skipped:
            self.skipped -= 1
        elif self.failures:
            raise self.failures.pop(0)
        self._log.append(records)

    def room_bytes(self) -> int:
        self.looks += 1
        if self.looking is not None:
            asyncio.run_coroutine_threadsafe(self.looking.wait(), self._loop).result()
        if self.room is None:
            return self._log.room_bytes()
        if self.room < 0:
            raise OSError(errno.EIO, "input/output error")
        return self.room

    def read(self, *arguments: int) -> Any:
        if self.unreadable:
            self.unreadable -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._log.read(*arguments)


@asynccontextmanager
async def opened(
    path: Path,
    queue_limits: QueueLimits | None = None,
    requests: RequestIds | None = None,
    *,
    bytes_max: int = 64 * MIB,
    retention_s: float = 0.0,
    at: int | None = 0,
    **hooks: object,
) -> AsyncIterator[tuple[DiskJournal, Brakes]]:
    """A journal that has been resumed at this position (None: where it was known to be) and takes offers."""
    log = Brakes(SegmentLog.open(DiskDirectory.open(path), LogLimits(bytes_max, retention_s=retention_s)))
    journal = DiskJournal(log, queue_limits or limits(), requests, **hooks)  # type: ignore[arg-type]
    await journal.resume()
    if at is not None:
        await journal.rewind(at)
    try:
        yield journal, log
    finally:
        log.go.set()
        await journal.end(5)


async def written(journal: DiskJournal) -> None:
    """Until all that was taken is durable."""
    while journal.unwritten_rows:
        await asyncio.sleep(0.001)
