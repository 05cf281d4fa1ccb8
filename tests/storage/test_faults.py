"""Whose fault a database failure is: every SQLSTATE of the table in `ingestor.storage.faults`."""

from __future__ import annotations

import asyncpg
import pytest

from ingestor.errors import RowsRefused, SchemaProblem, StorageError, StorageUnavailable
from ingestor.storage.faults import classify, describe


class Failure(asyncpg.PostgresError):
    """What a server says, with the fields that it adds."""

    def __init__(self, sqlstate: str, **fields: str) -> None:
        super().__init__("what it says")
        self.__dict__["sqlstate"] = sqlstate
        for name in ("constraint_name", "table_name", "column_name"):
            setattr(self, name, fields.get(name))


ROWS = ["20000", "21000", "22001", "22003", "22021", "22P05", "23502", "23505", "23514", "23P01", "44000"]
ROWS += ["54000", "P0000", "P0001", "P0002", "P0003"]
SCHEMAS = ["0A000", "0P000", "22P03", "22P04", "28000", "28P01", "2BP01", "3D000", "3F000", "42501", "42703"]
SCHEMAS += ["42804", "42P01", "54001", "54011", "55000", "IGC02", "P0004"]
SERVERS = ["08000", "08006", "25006", "25P02", "40001", "40P01", "53000", "53100", "53200", "53300", "55006"]
SERVERS += ["55P03", "57014", "57P01", "57P02", "57P03", "58030", "XX000", "XX001", "99999", "IGC01"]


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        *((state, RowsRefused) for state in ROWS),
        *((state, SchemaProblem) for state in SCHEMAS),
        *((state, StorageUnavailable) for state in SERVERS),
    ],
)
def test_each_state_is_somebodys_fault(sqlstate: str, kind: type[StorageError]) -> None:
    """A row's, which gives it up; the schema's, which waits for somebody; the server's, which is tried again."""
    fields = {"constraint_name": "c"} if sqlstate == "23514" else {}
    found = classify(Failure(sqlstate, **fields))
    assert type(found) is kind
    assert found.sqlstate == sqlstate


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError(),
    ],
)
def test_what_has_no_state_is_the_servers_fault(error: Exception) -> None:
    """When in doubt: trying again costs time, giving up costs rows."""
    assert type(classify(error)) is StorageUnavailable


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"constraint_name": "low", "table_name": "metrics"}, RowsRefused),
        ({"table_name": "metrics"}, SchemaProblem),  # no partition for the row
        ({}, RowsRefused),  # a trigger that raises it
    ],
)
def test_a_broken_check_may_be_a_missing_partition(fields: dict[str, str], kind: type[StorageError]) -> None:
    """They share a SQLSTATE; the text is in the server's language."""
    assert type(classify(Failure("23514", **fields))) is kind


@pytest.mark.parametrize(("column", "kind"), [("value", RowsRefused), ("tenant", SchemaProblem)])
def test_a_column_that_nobody_fills_is_the_schemas_fault(column: str, kind: type[StorageError]) -> None:
    """It would refuse every row."""
    assert type(classify(Failure("23502", column_name=column))) is kind


def test_a_description_is_one_line_and_never_empty() -> None:
    """Logs are lines; and a row that PostgreSQL quotes in its detail is not among them."""
    error = asyncpg.CheckViolationError("violates constraint\nDETAIL:  Failing row contains (secret)")
    assert describe(error) == "violates constraint"
    assert describe(TimeoutError()) == "TimeoutError"
