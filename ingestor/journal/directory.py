"""The journal's directory on a real file system: DATA_DIR/journal.

It refuses a directory that somebody else owns, because that user could put anything there, and whatever is no
plain file of ours under one of our names. A directory of ours that others may enter it closes to them: nothing
was promised to them, and an operator's `mkdir` leaves it that way.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ingestor.errors import JournalProblem
from ingestor.journal.files import Space
from ingestor.private_files import LockHeld, NotPrivate, lock, open_private

_NAME = "journal"
_LOCK = "lock"


class DiskFile:
    """One open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) in (0, size):
            return data
        parts = [data]
        while data:  # Linux reads 2 GiB at most, and a signal may cut it short
            offset, size = offset + len(data), size - len(data)
            data = os.pread(self._fd, size, offset)
            parts.append(data)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._fd, left, offset)
            offset += written
            left = left[written:]

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        os.close(self._fd)


class DiskDirectory:
    """DATA_DIR/journal. Every name in it is taken relative to the directory as it was opened."""

    def __init__(self, path: Path, fd: int) -> None:
        """`open` makes one."""
        self.path = path
        self._fd = fd
        self._lock_fd: int | None = None

    @classmethod
    def open(cls, data_dir: Path, *, create: bool = True) -> DiskDirectory:
        """Opens it; with `create` also makes it, and what is missing above it. Raises JournalProblem, and
        FileNotFoundError without `create`."""
        path = data_dir.absolute() / _NAME
        try:
            if create:
                _make(path)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if create:
                    _check(path, fd)
            except BaseException:  # whatever it is: a file descriptor must not outlive it; it is raised again
                os.close(fd)
                raise
        except FileNotFoundError:
            if not create:
                raise
            msg = f"the journal's directory {path} can't be made"
            raise JournalProblem(msg) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            msg = f"the journal's directory {str(path)[:300]} can't be used: {reason} (see DATA_DIR)"
            raise JournalProblem(msg) from error
        return cls(path, fd)

    def lock(self) -> None:
        try:
            fd = open_private(_LOCK, os.O_RDWR | os.O_CREAT, dir_fd=self._fd)
            try:
                lock(fd)
            except BaseException:  # likewise
                os.close(fd)
                raise
        except LockHeld as held:
            msg = (
                f"another ingestor (pid {held.holder}) uses the journal in {self.path}:"
                " stop it, or set DATA_DIR to another directory"
            )
            raise JournalProblem(msg) from None
        except NotPrivate as error:
            raise JournalProblem(f"{self.path}: {error}") from None
        self._lock_fd = fd

    def release(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def close(self) -> None:
        """Lets go of the directory itself."""
        self.release()
        os.close(self._fd)

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with os.scandir(self._fd) as entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # removed since its name was read
                    continue
                if not stat.S_ISDIR(facts.st_mode):
                    found[entry.name] = facts.st_size
        return found

    def open_file(self, name: str, *, create: bool = False) -> DiskFile:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            return DiskFile(open_private(name, flags, dir_fd=self._fd))
        except NotPrivate as error:
            raise JournalProblem(f"{self.path}: {error}") from None

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        os.fsync(self._fd)

    def space(self) -> Space:
        facts = os.fstatvfs(self._fd)
        return Space(facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize)


def _make(path: Path) -> None:
    """Run as root, what lies above it must let PostgreSQL pass, which is another user and may live beside it."""
    missing = [above for above in path.parents if not above.exists()]
    for above in reversed(missing):
        above.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            above.chmod(0o755)  # whatever the umask is
        _sync(above.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    _sync(path.parent)


def _check(path: Path, fd: int) -> None:
    facts = os.fstat(fd)
    if facts.st_uid != os.geteuid():
        msg = (
            f"the journal's directory {path} belongs to the user with the number {facts.st_uid}, and the ingestor"
            f" runs as {os.geteuid()}: run it as that user, or chown the directory"
        )
        raise JournalProblem(msg)
    if facts.st_mode & 0o077:
        os.fchmod(fd, 0o700)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
