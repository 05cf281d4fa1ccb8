"""A file system in memory that keeps no more than was asked of it, and fails when it is told to.

It stands in for `ingestor.journal.directory`. A power loss keeps of what was not synced any part that chance picks:
writes in any order, torn anywhere, made up with zeros, and any of the directory's changes. A sync that fails has
kept any part, and syncing again proves nothing: the next one succeeds all the same.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

from ingestor.errors import JournalProblem
from ingestor.journal.files import Space

OPERATIONS = ("write", "sync", "truncate", "create", "unlink", "rename", "dirsync")
UNBOUNDED_BYTES = 1 << 40
POWER_LOSS = -1
"""As an error number: no answer at all, the machine is off."""
KILLED = -2
"""As an error number: the process ends there. The machine lives on, and has what was written, synced or not."""


class PowerLoss(BaseException):
    """The machine is off, or the process was killed: whoever ran doesn't run any more."""


class Fault(NamedTuple):
    """What the operation answers after so many that go well; with `lasting` from then on."""

    operation: str
    after: int
    error: int
    lasting: bool = False


class _Change:
    """A write (of `data` at `offset`) or a truncation (to `offset`). `sure` says that a sync vouched for it,
    `tried` that one failed since."""

    def __init__(self, offset: int, data: bytes | None) -> None:
        self.offset = offset
        self.data = data
        self.sure = self.tried = False

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
        else:
            content.extend(bytes(max(0, self.offset + len(self.data) - len(content))))
            content[self.offset : self.offset + len(self.data)] = self.data

    def tear(self, content: bytearray, random: Random) -> None:
        """Applies any part of it."""
        fate = random.choice(("all", "none", "pieces", "zeros"))
        if fate == "all" or (fate != "none" and self.data is None):
            self.apply(content)
        elif fate != "none" and self.data is not None:
            data = self.data
            if fate == "zeros":  # the size is on the disk and the bytes aren't
                content.extend(bytes(max(0, self.offset + len(data) - len(content))))
            borders = sorted({0, len(data), *(random.randint(0, len(data)) for _ in range(3))})
            for begin, end in pairwise(borders):
                if random.random() < 0.5:
                    _Change(self.offset + begin, data[begin:end]).apply(content)


class _Inode:
    def __init__(self) -> None:
        self.base = bytearray()
        self.cached = bytearray()
        self.changes: list[_Change] = []

    def change(self, change: _Change) -> None:
        change.apply(self.cached)
        self.changes.append(change)

    def synced(self) -> None:
        for change in self.changes:
            change.sure = change.sure or not change.tried
        while self.changes and self.changes[0].sure:
            self.changes.pop(0).apply(self.base)

    def after_power_loss(self, random: Random) -> _Inode:
        left = _Inode()
        content = bytearray(self.base)
        for change in self.changes:
            if change.sure:
                change.apply(content)
            else:
                change.tear(content, random)
        left.base, left.cached = content, bytearray(content)
        return left


_Names = dict[str, _Inode]


class _Entry(NamedTuple):
    """A change to the directory: `name` is gone, or `inode` has it."""

    name: str
    inode: _Inode | None
    old: str | None = None

    def apply(self, names: _Names) -> None:
        if self.old is not None:
            names.pop(self.old, None)
        if self.inode is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.inode


class Disk:
    """What outlives processes. `capacity_bytes` can be changed at any time."""

    def __init__(self, seed: int = 0, capacity_bytes: int = UNBOUNDED_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        self.random = Random(seed)
        self.names: _Names = {}
        self.calls: list[str] = []
        self._durable: _Names = {}
        self._entries: list[_Entry] = []
        self._faults: list[list[int | str | bool]] = []
        self._boots = 0
        self._locked_by: Process | None = None

    def boot(self) -> Process:
        """A directory for a new process; those before can do nothing any more."""
        self._boots += 1
        self._locked_by = None
        return Process(self, self._boots)

    def kill(self) -> None:
        """Ends the process. Call `boot` then."""
        self._boots += 1

    def lose_power(self) -> None:
        """Forgets whatever was not synced, as chance has it. Call `boot` then."""
        names = dict(self._durable)
        for entry in self._entries:
            if self.random.random() < 0.5:
                entry.apply(names)
        fresh: dict[int, _Inode] = {}
        for inode in names.values():
            if id(inode) not in fresh:
                fresh[id(inode)] = inode.after_power_loss(self.random)
        self.names = {name: fresh[id(inode)] for name, inode in names.items()}
        self._durable, self._entries = dict(self.names), []
        self._boots += 1

    @property
    def in_limbo(self) -> bool:
        """Whether a file shows bytes that a sync failed to write, so that nobody knows whether they will stay."""
        return any(change.tried and not change.sure for i in self.names.values() for change in i.changes)

    @property
    def tight(self) -> bool:
        """Whether it can be full by itself."""
        return self.capacity_bytes < UNBOUNDED_BYTES

    @property
    def boots(self) -> int:
        return self._boots

    @property
    def used_bytes(self) -> int:
        return sum(len(inode.cached) for inode in self.names.values())

    def fail(self, faults: Sequence[Fault]) -> None:
        """From now on, instead of what was to fail before."""
        self._faults = [list(fault) for fault in faults]

    def due(self, operation: str) -> int:
        """The error that this call of it answers with, 0 for none."""
        self.calls.append(operation)
        for fault in self._faults:
            if fault[0] != operation:
                continue
            if int(fault[1]) > 0:
                fault[1] = int(fault[1]) - 1
                continue
            if not fault[3]:
                self._faults.remove(fault)
            return int(fault[2])
        return 0

    def enter(self, entry: _Entry) -> None:
        entry.apply(self.names)
        self._entries.append(entry)

    def sync_names(self) -> None:
        self._durable, self._entries = dict(self.names), []

    def lock(self, process: Process) -> None:
        if self._locked_by is not None:
            raise JournalProblem("another ingestor uses it")
        self._locked_by = process

    def release(self, process: Process) -> None:
        if self._locked_by is process:
            self._locked_by = None


class Process:
    """The `Directory` of one process."""

    path = Path("/data/journal")

    def __init__(self, disk: Disk, boot: int) -> None:
        self._disk = disk
        self._boot = boot

    def alive(self) -> None:
        if self._disk.boots != self._boot:
            raise PowerLoss

    def attempt(self, operation: str) -> int:
        """The error that it ends with, when its work or part of that is done; 0 when it goes well."""
        self.alive()
        return self._disk.due(operation)

    def end(self, error: int) -> None:
        """Answers."""
        if error == POWER_LOSS:
            self._disk.lose_power()
            raise PowerLoss
        if error == KILLED:
            self._disk.kill()
            raise PowerLoss
        if error:
            raise OSError(error, os.strerror(error))

    def partly(self, error: int) -> bool:
        """Whether it was done: a full disk says so before, a broken one may say so after."""
        return not error or (error in (errno.EIO, POWER_LOSS, KILLED) and self._disk.random.random() < 0.5)

    @property
    def disk(self) -> Disk:
        return self._disk

    def lock(self) -> None:
        self.alive()
        self._disk.lock(self)

    def release(self) -> None:
        self._disk.release(self)

    def space(self) -> Space:
        self.alive()
        capacity = self._disk.capacity_bytes
        return Space(max(0, capacity - self._disk.used_bytes), capacity)

    def sizes(self) -> dict[str, int]:
        self.alive()
        return {name: len(inode.cached) for name, inode in self._disk.names.items()}

    def open_file(self, name: str, *, create: bool = False) -> OpenFile:
        self.alive()
        if not create:
            if name not in self._disk.names:
                raise _failure(errno.ENOENT)
            return OpenFile(self, self._disk.names[name])
        if name in self._disk.names:
            raise _failure(errno.EEXIST)
        self._change("create", _Entry(name, _Inode()))
        return OpenFile(self, self._disk.names[name])

    def rename(self, old: str, new: str) -> None:
        self.alive()
        if old not in self._disk.names:
            raise _failure(errno.ENOENT)
        self._change("rename", _Entry(new, self._disk.names[old], old))

    def unlink(self, name: str) -> None:
        self.alive()
        if name not in self._disk.names:
            raise _failure(errno.ENOENT)
        self._change("unlink", _Entry(name, None))

    def sync(self) -> None:
        error = self.attempt("dirsync")
        if self.partly(error):
            self._disk.sync_names()
        self.end(error)

    def _change(self, operation: str, entry: _Entry) -> None:
        error = self.attempt(operation)
        if self.partly(error):
            self._disk.enter(entry)
        self.end(error)


class OpenFile:
    """The `File` of one process."""

    def __init__(self, process: Process, inode: _Inode) -> None:
        self._process = process
        self._inode = inode

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def read(self, offset: int, size: int) -> bytes:
        self._process.alive()
        return bytes(self._inode.cached[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        disk = self._process.disk
        error = self._process.attempt("write")
        grows = offset + len(data) - len(self._inode.cached)
        if not error and grows > 0 and disk.used_bytes + grows > disk.capacity_bytes:
            error = errno.ENOSPC
        if not error:
            self._inode.change(_Change(offset, bytes(data)))
            return
        part = bytes(data[: disk.random.randint(0, len(data))])
        if part and disk.used_bytes + len(part) <= disk.capacity_bytes:
            self._inode.change(_Change(offset, part))
        self._process.end(error)

    def sync(self) -> None:
        error = self._process.attempt("sync")
        if not error:
            self._inode.synced()
            return
        # The system's cache calls these pages clean from now on; whether the disk has them nobody knows.
        if error != KILLED:
            for change in self._inode.changes:
                change.tried = change.tried or not change.sure
        self._process.end(error)

    def truncate(self, size: int) -> None:
        error = self._process.attempt("truncate")
        if self._process.partly(error):
            self._inode.change(_Change(size, None))
        self._process.end(error)

    def close(self) -> None:
        """Syncs nothing."""


def _failure(error: int) -> OSError:
    return OSError(error, os.strerror(error))
