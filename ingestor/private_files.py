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
from pathlib import Path


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


def replace_private(path: Path, content: bytes) -> None:
    """Puts a file with this content under the name, in one step that outlives a power loss. It belongs to whoever
    the old one belongs to, or else its directory: root may write what the server is to read. Raises NotPrivate
    when there is something else under the name, OSError."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    new = f".{path.name}.{os.getpid()}.new"
    try:
        owner = _owner(path.name, directory)
        fd = open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=directory)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                if os.geteuid() == 0:
                    os.fchown(fd, owner.st_uid, owner.st_gid)
                os.fsync(fd)
            os.rename(new, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:  # whatever it is, nothing half done is left; it is raised again
            os.unlink(new, dir_fd=directory)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)


def _owner(name: str, directory: int) -> os.stat_result:
    try:
        fd = open_private(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        return os.fstat(directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            msg = f"{name} is a symbolic link: change the file that it leads to"
            raise NotPrivate(msg) from None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
