"""Whose fault a database failure is: every line of the table in ingestor/storage/faults.py."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg
import pytest

from ingestor.errors import RowsRefused, SchemaProblem, StorageError, StorageUnavailable
from ingestor.storage.database import Database
from ingestor.storage.faults import classify, describe, storage_errors
from tests.storage.deliveries import Reader

Kind: TypeAlias = type[StorageError]

STATES: dict[Kind, str] = {
    RowsRefused: "20000 21000 22000 22001 22003 22008 22021 22023 22P01 22P02 22P05 23000 23001 23502 23503 23505"
    " 23514 23P01 44000 P0000 P0001 P0002 P0003 54000",
    SchemaProblem: "22P03 22P04 0A000 0P000 28000 28P01 2BP01 3D000 3F000 42501 42601 42703 42P01 42804 42883 42P17"
    " 54001 54011 54023 P0004 55000 IGC02",
    StorageUnavailable: "08000 08003 08006 08P01 25006 25P02 40001 40P01 40003 53000 53100 53200 53300 55006 55P03"
    " 55P02 57000 57014 57P01 57P02 57P03 57P05 58000 58030 58P01 XX000 XX001 XX002 0B000 HV000 72000 99999 IGC01"
    " F0000 38000 39000",
}


def error_of(state: str, text: str = "no", **fields: str) -> asyncpg.PostgresError:
    """What asyncpg makes of a server's answer."""
    codes = {"constraint_name": "n", "table_name": "t", "column_name": "c", "hint": "H"}
    error: asyncpg.PostgresError = asyncpg.PostgresError.new(
        {"S": "ERROR", "C": state, "M": text} | {codes[name]: value for name, value in fields.items()}
    )
    assert error.sqlstate == state
    return error


@pytest.mark.parametrize(
    ("state", "kind"), [(state, kind) for kind, states in STATES.items() for state in states.split()]
)
def test_each_sqlstate_is_somebodys_fault(state: str, kind: Kind) -> None:
    """A row's, the schema's or the server's, by the table; which it was stays readable."""
    assert type(classify(error_of(state))) is kind
    assert classify(error_of(state)).sqlstate == state


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (error_of("23514", "no partition of relation", table_name="metrics"), SchemaProblem),
        (error_of("23514", "keine Partition von Relation", table_name="metrics"), SchemaProblem),
        (error_of("23514", "violates", table_name="metrics", constraint_name="small"), RowsRefused),
        (error_of("23514", "a trigger's", constraint_name=""), RowsRefused),
        (error_of("22001", "too long", table_name="metrics"), RowsRefused),
        (error_of("23502", "null value", table_name="metrics", column_name="region"), SchemaProblem),
        (error_of("23502", "null value", table_name="metrics", column_name="value"), RowsRefused),
        (error_of("23502", "null value", table_name="label_sets", column_name="labels"), RowsRefused),
    ],
)
def test_a_sqlstate_that_means_two_things(error: asyncpg.PostgresError, kind: Kind) -> None:
    """A missing partition is told from a broken CHECK, and a column that nobody fills from a NULL in ours, whatever
    language the server speaks."""
    assert type(classify(error)) is kind


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError(),
    ],
)
def test_without_an_answer_it_is_the_servers(error: Exception) -> None:
    """When in doubt it is tried again: rows are worth more than time."""
    assert type(classify(error)) is StorageUnavailable


def test_a_schemas_fault_says_what_to_do() -> None:
    """Our own advice first, else the first line of the server's hint, else none."""
    assert str(classify(error_of("3D000", hint="ask"))).startswith("no (create the database, or name another")
    assert str(classify(error_of("0A000", hint="ask\nor don't"))) == "no (ask)"
    assert str(classify(error_of("0A000"))) == "no"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (error_of("22P03"), "give the column back its type"),
        (error_of("42804"), "give the column back its type"),
        (error_of("23502", column_name="region"), "give the column a DEFAULT"),
        (error_of("23514", table_name="metrics"), "attach it if there is a table with its name"),
        (error_of("42P01"), "bring it back under its name"),
        (error_of("42703"), "bring it back under its name"),
        (error_of("42883"), "with the arguments that the migrations gave it"),
        (error_of("42501"), "`ingestor check` says what to GRANT"),
        (error_of("28P01"), "check the password in DATABASE_URL"),
        (error_of("28000"), "pg_hba.conf"),
    ],
)
def test_what_can_be_mended_is_told_with_the_remedy(error: asyncpg.PostgresError, advice: str) -> None:
    """Which SQLSTATE it is tells an operator nothing, what to do about it does."""
    assert advice in str(classify(error))


def test_what_a_database_raises_inside_becomes_the_domains_error() -> None:
    """The driver's errors don't get any further; others pass, and so does success."""
    with storage_errors():
        pass
    with pytest.raises(StorageUnavailable) as raised, storage_errors():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no")
    assert str(raised.value) == "connection refused"
    with pytest.raises(KeyError), storage_errors():
        raise KeyError


def every_sqlstate() -> list[str]:
    """All errors that asyncpg knows by name, and ours."""
    named = (getattr(asyncpg.exceptions, name) for name in dir(asyncpg.exceptions))
    errors = (each for each in named if isinstance(each, type) and issubclass(each, asyncpg.PostgresError))
    states = {str(each.sqlstate) for each in errors if getattr(each, "sqlstate", None)}
    return sorted({*states, *" ".join(STATES.values()).split()})


# Each row raises what its names say.
_RAISING = """
CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE told text[] := string_to_array(NEW.metric_name, '/');
BEGIN
  RAISE EXCEPTION 'no'
    USING ERRCODE = NEW.service_name, CONSTRAINT = told[1], TABLE = told[2], COLUMN = told[3];
END $$;
CREATE TRIGGER raises BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION raises();
"""
_ONE = "SELECT * FROM store_metrics_one_by_one($1, $2, $3, $4, $5, $6)"


async def test_the_database_judges_single_rows_by_the_same_table(database: Database, reader: Reader) -> None:
    """For every SQLSTATE there is, with and without the names that tell two meanings apart, the function that
    stores rows one by one sets aside exactly those that `classify` calls a row's fault, and raises the others."""
    await reader.execute("SELECT ensure_metrics_partition(now())")
    await reader.execute(_RAISING)
    cases = [(state, "//") for state in every_sqlstate()]
    cases += [
        (state, told) for state in ("23514", "23502") for told in ("/t/", "c/t/", "/t/value", "/t/region")
    ]
    assert len(cases) > 200
    for state, told in cases:
        arguments = ([datetime.now(UTC)], [state.encode()], [told.encode()], [1.0], [0], [None])
        names = dict(zip(("constraint_name", "table_name", "column_name"), told.split("/"), strict=True))
        expected = classify(error_of(state, **{name: value for name, value in names.items() if value}))
        if isinstance(expected, RowsRefused):
            [found] = await reader.fetch(_ONE, *arguments)
            assert (found["refused"], found["sqlstate"], found["reason"]) == (1, state, "no")
        else:
            with pytest.raises(asyncpg.PostgresError) as raised:
                await reader.fetch(_ONE, *arguments)
            assert raised.value.sqlstate == state
    assert await reader.fetchval("SELECT count(*) FROM metrics") == 0


def test_a_description_is_one_line_and_never_empty() -> None:
    """Logs are lines; and a row that PostgreSQL quotes in its detail is not among them."""
    error = asyncpg.CheckViolationError("violates constraint\nDETAIL:  Failing row contains (secret)")
    assert describe(error) == "violates constraint"
    assert describe(TimeoutError()) == "TimeoutError"
    assert describe(PermissionError(errno.EPERM, "connect to 10.0.0.1")) == "operation not permitted"
    assert describe(OSError(0, "nobody knows")) == "[Errno 0] nobody knows"
