"""PostgreSQL's own log: a file that it appends to, whose end explains a failure.

It exists because a server that does not start says why only there. It refuses to grow without bound: past
the limit only the newest part is kept (what is written while that is cut off may be lost).

Invariants: the file is opened for appending only, so that cutting it never leaves a hole.
"""

import os
import re
from pathlib import Path

from ingestor.storage.embedded.errors import remedy_for
from ingestor.storage.embedded.private_file import open_private

_BYTES_MAX = 10 * 1024 * 1024
_BYTES_KEPT = 1024 * 1024
_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 3
_TAIL_CHARS = 600
_TELLING = re.compile(r"\b(?:FATAL|PANIC|ERROR|error|fatal|cannot|could not)\b")
_NOISE = re.compile(r"FATAL:  the database system is ")  # the answer to our own attempts to connect
_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[\d+\] ")


class ServerLog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = 0

    def open(self) -> int:
        """A descriptor for the child's output; `tail` tells of what is written from here on."""
        self.trim()
        fd = open_private(self._path, os.O_WRONLY | os.O_APPEND)
        self._begin = os.fstat(fd).st_size
        return fd

    def trim(self) -> None:
        fd = open_private(self._path, os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            if size > _BYTES_MAX:
                kept = os.pread(fd, _BYTES_KEPT, size - _BYTES_KEPT)
                os.ftruncate(fd, 0)
                os.write(fd, kept)
                self._begin = 0
        finally:
            os.close(fd)

    def tail(self) -> str:
        """The last telling lines, in one, with advice; empty when nothing was written."""
        lines = [_PREFIX.sub("", line) for line in self._new_text().splitlines() if line.strip()]
        telling = [line for line in lines if _TELLING.search(line) and not _NOISE.search(line)] or lines
        text = " | ".join(telling[-_TAIL_LINES:])[-_TAIL_CHARS:]
        return f": {text}{remedy_for(text)} (log: {self._path})" if text else ""

    def _new_text(self) -> str:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._begin, size - _TAIL_BYTES))
                return file.read(_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""  # it only adds to a message
