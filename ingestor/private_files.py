"""Opens our small files under the data directory (locks, logs, notes) without being led astray.

It exists because root may run the ingestor over a directory that another user can write to. It refuses
what such a user could have planted there: symbolic links, hard links to other files, devices.

Invariants: a file made here has mode 0600; its descriptor is never inherited by a child; a lock file is never
unlinked (a waiter could hold the old one), and a held lock is an error, never a wait.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat


class NotPrivate(Exception):
    """There is something else under the name of a file of ours."""


class LockHeld(Exception):
    """Another process holds the lock; `holder` is its pid, or `unknown`."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"held by pid {holder}")
        self.holder = holder


def open_private(path: str | os.PathLike[str], flags: int, *, dir_fd: int | None = None) -> int:
    """Opens a regular file that has no other name, with flags of os.open; one that it makes has mode 0600.
    `path` may be relative to an open directory. Raises NotPrivate, OSError; FileNotFoundError also for one that is
    removed meanwhile."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    facts = os.fstat(fd)
    if facts.st_nlink == 0:  # removed since it was opened
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        os.close(fd)
        raise NotPrivate(f"{os.fspath(path)} is not a plain file with one name: look at it, then remove it")
    return fd


def lock(fd: int) -> None:
    """Makes this process the only holder of an open lock file, and writes its pid there. Raises LockHeld,
    OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockHeld(os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
