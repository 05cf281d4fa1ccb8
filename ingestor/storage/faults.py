"""Says of a database failure whose fault it is: the server's (try again) or the data's (never will do).

When in doubt it is the server's: trying again costs time, giving up costs rows.
"""

from __future__ import annotations

import os

import asyncpg

from ingestor.errors import RowsRefused, StorageError, StorageUnavailable

# PostgreSQL's appendix A: class 22 is "data exception", class 23 "integrity constraint violation".
_DATA_CLASSES = ("22", "23")

FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # how a connection that died in the middle of a reply often shows
    OSError,
    TimeoutError,
)
"""What a broken or refusing database raises through asyncpg."""


def classify(error: BaseException) -> StorageError:
    """The domain's error for one of `FAILURES`."""
    sqlstate = getattr(error, "sqlstate", None)
    message = describe(error)
    if sqlstate is not None and sqlstate[:2] in _DATA_CLASSES and not is_missing_partition(error):
        return RowsRefused(message, sqlstate)
    return StorageUnavailable(message, sqlstate)


def is_missing_partition(error: BaseException) -> bool:
    """Whether COPY found no partition for a row: somebody dropped the one that we made, so it is the schema's
    fault and not the row's. Its SQLSTATE is that of a broken CHECK, but it names no constraint (and its text is
    in the server's language)."""
    return isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None


def describe(error: BaseException) -> str:
    """One line: what the server said, without the row that it may quote in its detail."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()  # asyncio's own text repeats the address
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
