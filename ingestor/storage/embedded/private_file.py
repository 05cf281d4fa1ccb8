"""Opens our small files under the data directory (lock, log, note) without being led astray.

It exists because root may run the ingestor over a directory that another user can write to. It refuses
what such a user could have planted there: symbolic links, hard links to other files, devices.

Invariants: a file made here has mode 0600; its descriptor is never inherited by a child.
"""

import os
import stat
from pathlib import Path

from ingestor.storage.embedded.errors import EmbeddedPostgresError


def open_private(path: Path, flags: int) -> int:
    """Opens a regular file that has no other name, making it when it is missing."""
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
        os.close(fd)
        raise EmbeddedPostgresError(f"{path} is not a plain file with one name: look at it, then remove it")
    return fd
