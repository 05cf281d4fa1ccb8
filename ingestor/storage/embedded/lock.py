"""The lock that makes one process the user of a data directory.

It exists because PostgreSQL's own pid file can't tell a live owner from a reused pid, while the kernel
drops this lock with its process, however that ends. It refuses to wait: a held lock is an error.

Invariants: the lock file is never unlinked (a waiter could hold the old one); no child inherits it.
"""

import os
from pathlib import Path

from ingestor import private_files
from ingestor.storage.embedded.errors import EmbeddedPostgresError
from ingestor.storage.embedded.private_file import open_private


class DataDirLock:
    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        fd = open_private(self._data_dir / "postgres.lock", os.O_RDWR)
        try:
            private_files.lock(fd)
        except private_files.LockHeld as held:
            os.close(fd)
            raise EmbeddedPostgresError(self._refusal(held.holder)) from None
        except BaseException:  # it is raised again
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _refusal(self, holder: str) -> str:
        return (
            f"another ingestor (pid {holder}) uses {self._data_dir}: "
            "stop it, or set INGESTOR_DATA_DIR to another directory"
        )
