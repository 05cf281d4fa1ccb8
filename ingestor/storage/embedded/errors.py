"""The one error of this package, and the words that tell an operator what to do about a cause.

It exists so that every failure is a single line with a remedy. It refuses to guess: a cause that is not
in the table is passed on as the system or PostgreSQL said it.

Invariants: no message holds a line break; no OSError leaves `EmbeddedPostgres.start` as itself.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ELSEWHERE = "set INGESTOR_DATA_DIR to a directory that"
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: f"the file system is read-only: {_ELSEWHERE} can be written",
    errno.EACCES: f"run as the user who owns it, or {_ELSEWHERE} you own",
    errno.EPERM: f"run as the user who owns it, or {_ELSEWHERE} you own",
    errno.ENOTDIR: f"a file is in the way: {_ELSEWHERE} can be made",
    errno.EEXIST: f"a file is in the way: {_ELSEWHERE} can be made",
    errno.ENAMETOOLONG: f"{_ELSEWHERE} has a shorter path",
    errno.ELOOP: "a symbolic link is in the way: remove it",
    errno.ENOLCK: f"its file system has no locks: {_ELSEWHERE} is on a local disk",
}


class EmbeddedPostgresError(Exception):
    """One line that says what happened and what to do."""


class InUse(EmbeddedPostgresError):
    """Another process runs the database of this directory."""


def remedy_for(text: str) -> str:
    """The advice for a message of the system or of PostgreSQL, which speak of errors in the same words."""
    if "shared memory segment" in text and os.strerror(errno.ENOSPC) in text:
        return "; shared memory is full: give it more (docker: --shm-size)"
    if "cannot run as uid" in text and os.strerror(errno.EACCES) in text:
        return f"; its file system may forbid programs (noexec): {_ELSEWHERE} allows them"
    return next((f"; {remedy}" for code, remedy in _REMEDIES.items() if os.strerror(code) in text), "")


@contextmanager
def explained(data_dir: Path) -> Iterator[None]:
    """Turns an OSError into an EmbeddedPostgresError about `data_dir`."""
    try:
        yield
    except OSError as error:
        text = f"{error.strerror} ({error.filename})" if error.filename else str(error)
        told = " ".join(text.split())
        raise EmbeddedPostgresError(
            f"cannot use {data_dir} for the embedded database: {told}{remedy_for(told)}"
        ) from error
