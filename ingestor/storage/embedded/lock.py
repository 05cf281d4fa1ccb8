"""The lock that makes one process the user of a data directory.

It exists because PostgreSQL's own pid file can't tell a live owner from a reused pid, while the kernel
drops this lock with its process, however that ends. It refuses to wait: a held lock is an error.

Invariants: the lock file is never unlinked (a waiter could hold the old one); no child inherits it.
"""

import fcntl
import os
from pathlib import Path

from ingestor.storage.embedded.errors import EmbeddedPostgresError
from ingestor.storage.embedded.private_file import open_private


class DataDirLock:
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        fd = open_private(self._data_dir / "postgres.lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedPostgresError(self._refusal(fd)) from None
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _refusal(self, fd: int) -> str:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        return (
            f"another ingestor (pid {holder}) uses {self._data_dir}: "
            "stop it, or set INGESTOR_DATA_DIR to another directory"
        )
