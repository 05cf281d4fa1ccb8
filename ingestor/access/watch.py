"""Keeps the gate's keys those of the file while the server runs; what a slip leaves of the file changes nothing.

Whoever wants no keys at all starts the server again: a file that goes away must not open it to everybody.
"""

from __future__ import annotations

from loguru import logger

from ingestor.access.file import KeysFile, KeysProblem
from ingestor.access.gate import Gate
from ingestor.access.keys import Keys
from ingestor.file_watch import FileWatch


class Watch:
    """Of one file, for one gate. `keep` looks at it for as long as it runs."""

    def __init__(self, file: KeysFile, gate: Gate) -> None:
        self._file = file
        self._gate = gate
        self._watch = FileWatch(
            [file.path], file.read, self._use, kept="the keys that are known stay in force"
        )
        self.keep = self._watch.keep
        self.look = self._watch.look

    @property
    def problem(self) -> str | None:
        """Why the file's present content does not count, None when it does. It may tell the file's path and what is
        in it: it is the operator's, not every caller's."""
        return self._watch.problem

    def begin(self) -> None:
        """Reads it for the first time. Without a file, or with an empty one, no keys are used. Raises
        KeysProblem."""
        keys = self._watch.begin()
        if keys is not None and keys.all:
            self._gate.use(keys)

    def _use(self, keys: Keys | None) -> None:
        """Raises KeysProblem."""
        if keys is not None and keys.all:
            self._gate.use(keys)
            logger.info("keys: {} valid ones in {}", self._gate.valid(), self._file.path)
        elif self._gate.keys is not None:
            msg = f"{self._file.path} has no keys any more; to take one away, revoke it"
            raise KeysProblem(msg)
