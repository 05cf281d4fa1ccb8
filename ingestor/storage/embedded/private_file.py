"""Opens our small files under the data directory (lock, log, note), and says what is wrong in this package's words.

It exists because whoever starts a server wants one kind of error. What it refuses, `ingestor.private_files` says.
"""

import os
from pathlib import Path

from ingestor import private_files
from ingestor.storage.embedded.errors import EmbeddedPostgresError


def open_private(path: Path, flags: int) -> int:
    """Opens a regular file that has no other name, making it when it is missing."""
    try:
        return private_files.open_private(path, flags | os.O_CREAT)
    except private_files.NotPrivate as error:
        raise EmbeddedPostgresError(str(error)) from None
