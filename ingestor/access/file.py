"""The file of keys: one JSON object a line, which a person can read, and only the commands write.

It is replaced in one step, so that who reads it sees the old keys or the new ones. It refuses a file that others
could have written; hashes of random secrets need not be hidden, but who can add a line has a key.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from ingestor.access.keys import KEYS_MAX, Key, Keys
from ingestor.errors import BadSetting
from ingestor.private_files import NotPrivate, replace_private

_BYTES_MAX = 16 * 1024**2
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class KeysProblem(BadSetting):
    """The file can't be used; the line says why and what to do, and holds nothing of the file's content."""


class KeysFile:
    """One file, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Keys | None:
        """All keys; None when there is no such file. Raises KeysProblem."""
        try:
            # Through symbolic links, as which Kubernetes mounts secrets: its owner and mode are what counts.
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._problem(error) from error
        try:
            content = self._checked_content(fd)
        except OSError as error:
            raise self._problem(error) from error
        finally:
            os.close(fd)
        return self._parsed(content)

    def change(self, change: Callable[[Keys], Iterable[Key]]) -> None:
        """Replaces the keys by what `change` makes of them, while nobody else does. Raises KeysProblem, and what
        `change` raises."""
        try:
            _make(self.path.parent)
            fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._problem(error) from error
        try:
            # Of the directory, since a lock file that root made could not be opened by the server's own user.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            keys = Keys(change(self.read() or Keys()))
            if len(keys.all) > KEYS_MAX:
                msg = (
                    f"{self.path} would have more than {KEYS_MAX} keys: take lines of revoked ones out of it"
                )
                raise KeysProblem(msg)
            lines = (key.model_dump_json(exclude_none=True) + "\n" for key in keys.all)
            replace_private(self.path, "".join(lines).encode())
        except BlockingIOError:
            msg = f"{self.path} is being changed by another process: try again"
            raise KeysProblem(msg) from None
        except (OSError, NotPrivate) as error:
            raise self._problem(error) from error
        finally:
            os.close(fd)

    def _checked_content(self, fd: int) -> bytes:
        """Raises KeysProblem, OSError."""
        self._check(os.fstat(fd))
        # A directory can't be made a file object, which is why it is looked at first.
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(_BYTES_MAX + 1)

    def _check(self, facts: os.stat_result) -> None:
        """Raises KeysProblem, OSError."""
        if not stat.S_ISREG(facts.st_mode):
            msg = f"{self.path} is no plain file"
        elif facts.st_mode & _OTHERS_WRITE:
            msg = f"{self.path} can be written by others: chmod go-w {self.path}"
        elif facts.st_uid not in self._trusted():
            msg = f"{self.path} belongs to another user (uid {facts.st_uid}), who could make keys"
        else:
            return
        raise KeysProblem(msg)

    def _trusted(self) -> set[int]:
        """Whose file it may be. Root also changes what belongs to the server's own user, as its directory does."""
        user = os.geteuid()
        return {0, user} if user else {0, self.path.parent.stat().st_uid}

    def _parsed(self, content: bytes) -> Keys:
        lines = content.splitlines()
        if len(content) > _BYTES_MAX or len(lines) > KEYS_MAX:
            msg = f"{self.path} is too large: it may have {KEYS_MAX} keys"
            raise KeysProblem(msg)
        keys = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                keys.append(Key.model_validate_json(line))
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                where = ".".join(map(str, first["loc"]))
                msg = f"{self.path}, line {number}: {where + ': ' if where else ''}{first['msg']}"
                raise KeysProblem(msg) from None
        try:
            return Keys(keys)
        except ValueError as error:
            msg = f"{self.path}: {error}"
            raise KeysProblem(msg) from None

    def _problem(self, error: OSError | NotPrivate) -> KeysProblem:
        if isinstance(error, NotPrivate):
            return KeysProblem(str(error))
        return KeysProblem(f"{self.path} can't be used: {(error.strerror or str(error)).lower()}")


def _make(directory: Path) -> None:
    """Run as root, others must be able to pass through it: PostgreSQL is another user, and may live there."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            path.chmod(0o755)
