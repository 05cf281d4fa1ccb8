"""Says of a database failure whose fault it is: a row's (it never will be stored), the schema's (not before
somebody has mended it) or the server's (try again).

When in doubt it is the server's: trying again costs time, giving up costs rows.

| SQLSTATE | whose | why |
| --- | --- | --- |
| 20, 21, 22, 23, 44 | row | no such value, broken constraint; 20 and 21 come from triggers alone |
| P0000 to P0003 | row | a trigger raised it |
| 54000 | row | an index that can't take so long a value |
| 22P03, 22P04 | schema | the column has another type than COPY sends |
| 23502 of a column that isn't ours | schema | nobody would fill it, in any row |
| 23514 of a table, without a constraint | schema | no partition for the row |
| 0A, 0P, 28, 2B, 3D, 3F, 42 | schema | no such table, column, role, right; not to be done with this table |
| 54001 and others, P0004, 55000 | schema | too many columns, a trigger's own mistake, a table in no state for it |
| IGC02 | schema | a trigger or rule leaves rows out |
| 08, 25, 40, 53, 55006, 55P03, 57, 58, XX, none ... | server | gone, full, locked, busy, read-only, broken |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from ingestor.errors import RowsRefused, SchemaProblem, StorageError, StorageUnavailable
from ingestor.model.batch import SCHEMA

CURSOR_MOVED = "IGC01"
"""What ingestor_move_cursor raises."""

HELD_UP = frozenset({"40P01", "55P03"})
"""A deadlock or a lock_timeout: somebody else is at these rows, which says nothing of others."""

_ROW_CLASSES = frozenset({"20", "21", "22", "23", "44"})
_ROW_STATES = frozenset({"54000", "P0000", "P0001", "P0002", "P0003"})
_SCHEMA_CLASSES = frozenset({"0A", "0P", "28", "2B", "3D", "3F", "42", "54"})
_SCHEMA_STATES = frozenset({"22P03", "22P04", "55000", "IGC02", "P0004"})
_NOT_NULL, _CHECK = "23502", "23514"
_FILLED = frozenset({*SCHEMA.names, "labels"})

LACKS_RIGHT = "42501"
"""What it is when the role lacks a right."""

_REMEDIES = {
    "22P03": "give the column back its type",
    "42804": "give the column back its type",
    _NOT_NULL: "give the column a DEFAULT, or let it be NULL",
    _CHECK: "it is made at the next attempt; attach it if there is a table with its name",
    "42P01": "bring it back under its name",
    "42703": "bring it back under its name",
    "42883": "bring it back, with the arguments that the migrations gave it",
    LACKS_RIGHT: "`ingestor check` says what to GRANT",
    "3D000": "create the database, or name another in DATABASE_URL",
    "28P01": "check the password in DATABASE_URL",
    "28000": "check the user in DATABASE_URL and the server's pg_hba.conf",
}

FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # how a connection that died in the middle of a reply often shows
    OSError,
    TimeoutError,
)
"""What a broken or refusing database raises through asyncpg."""


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what asyncpg raises into the domain's errors."""
    try:
        yield
    except FAILURES as error:
        raise classify(error) from error


def classify(error: BaseException) -> StorageError:
    """The domain's error for one of `FAILURES`."""
    sqlstate = getattr(error, "sqlstate", None)
    message = describe(error)
    if sqlstate is None:
        return StorageUnavailable(message)
    if _is_schemas(error, sqlstate):
        remedy = _REMEDIES.get(sqlstate) or getattr(error, "hint", None)
        return SchemaProblem(f"{message} ({remedy.splitlines()[0]})" if remedy else message, sqlstate)
    if sqlstate in _ROW_STATES or sqlstate[:2] in _ROW_CLASSES:
        return RowsRefused(message, sqlstate)
    return StorageUnavailable(message, sqlstate)


def is_missing_partition(error: BaseException) -> bool:
    """Whether COPY found no partition for a row: somebody dropped the one that we made. Its SQLSTATE is that of a
    broken CHECK, but it names a table and no constraint (its text is in the server's language); a trigger that
    raises the same names neither."""
    return (
        getattr(error, "sqlstate", None) == _CHECK
        and not getattr(error, "constraint_name", None)
        and bool(getattr(error, "table_name", None))
    )


def _is_schemas(error: BaseException, sqlstate: str) -> bool:
    if sqlstate == _NOT_NULL:
        column = getattr(error, "column_name", None)
        return bool(column) and column not in _FILLED
    if sqlstate in _ROW_STATES:
        return False
    return sqlstate in _SCHEMA_STATES or sqlstate[:2] in _SCHEMA_CLASSES or is_missing_partition(error)


def describe(error: BaseException) -> str:
    """One line: what the server said, without the row that it may quote in its detail."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()  # asyncio's own text repeats the address
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
