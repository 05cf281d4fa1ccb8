"""Whose fault a database failure is."""

from __future__ import annotations

import asyncpg
import pytest

from ingestor.errors import RowsRefused, StorageUnavailable
from ingestor.storage.faults import classify, describe


def check_violation(text: str, constraint: str | None) -> asyncpg.CheckViolationError:
    error = asyncpg.CheckViolationError(text)
    error.constraint_name = constraint
    return error


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.CharacterNotInRepertoireError("invalid byte sequence"),
        asyncpg.NumericValueOutOfRangeError("out of range"),
        asyncpg.NotNullViolationError("null value"),
        asyncpg.UniqueViolationError("duplicate key"),
        check_violation("violates check constraint", "small"),
    ],
)
def test_the_rows_fault(error: asyncpg.PostgresError) -> None:
    """SQLSTATE classes 22 and 23, and no others."""
    assert isinstance(classify(error), RowsRefused)
    assert classify(error).sqlstate == error.sqlstate


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.DiskFullError("no space left"),
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.SerializationError("could not serialize"),
        asyncpg.LockNotAvailableError("lock timeout"),
        asyncpg.ReadOnlySQLTransactionError("read-only"),
        asyncpg.TooManyConnectionsError("too many"),
        asyncpg.UndefinedTableError("no such table"),
        asyncpg.InsufficientPrivilegeError("permission denied"),
        check_violation('no partition of relation "metrics" found for row', None),
        check_violation("keine Partition von Relation »metrics« für die Zeile gefunden", None),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError(),
    ],
)
def test_not_the_rows_fault(error: Exception) -> None:
    """Everything else is kept and tried again: when in doubt, rows are worth more than time."""
    assert isinstance(classify(error), StorageUnavailable)


def test_a_description_is_one_line_and_never_empty() -> None:
    """Logs are lines; and a row that PostgreSQL quotes in its detail is not among them."""
    error = asyncpg.CheckViolationError("violates constraint\nDETAIL:  Failing row contains (secret)")
    assert describe(error) == "violates constraint"
    assert describe(TimeoutError()) == "TimeoutError"
