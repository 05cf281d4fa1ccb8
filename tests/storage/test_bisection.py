"""Rows that the database refuses, apart from those that it takes: for every cause that we know how to make."""

from __future__ import annotations

import json

import asyncpg
import pytest

from ingestor.errors import StorageUnavailable
from ingestor.model import MetricBatch, Row, label_set
from ingestor.storage.database import Database
from tests.conftest import fresh_database
from tests.storage.deliveries import (
    Gateway,
    Reader,
    batch_of,
    count_in,
    opened,
    placed,
    row,
    states,
    values_in,
)

TRIGGER = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.value >= 100 THEN RAISE EXCEPTION 'too high'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION refuse();
"""
CAUSES = {
    "check": ("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 100)", "23514"),
    "trigger": (TRIGGER, "P0001"),
    "domain": (
        """CREATE DOMAIN low AS double precision CHECK (VALUE < 100);
        DROP VIEW labeled_metrics; ALTER TABLE metrics ALTER COLUMN value TYPE low""",
        "23514",
    ),
    "deferred": (
        TRIGGER.replace("CREATE TRIGGER refuse BEFORE", "CREATE CONSTRAINT TRIGGER refuse AFTER").replace(
            "FOR EACH ROW", "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        ),
        "P0001",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_bad_rows_take_no_good_ones_with_them(database: Database, reader: Reader, cause: str) -> None:
    """Good rows are stored, bad ones are in dead_letters with their SQLSTATE, and the cursor has moved on."""
    statement, sqlstate = CAUSES[cause]
    gateway = Gateway(database)
    await gateway.store(batch_of(0))
    await reader.execute(statement)
    outcome = await gateway.store(batch_of(1, 200, 2, 300, 3))
    assert states(outcome.dead) == [(1, sqlstate), (3, sqlstate)]
    assert await values_in(reader) == [0, 1, 2, 3]
    assert await gateway.cursor() == 2
    letters = await reader.fetch(
        "SELECT sqlstate, metric->>'value' AS value, reason FROM dead_letters ORDER BY id"
    )
    assert [(each["sqlstate"], float(each["value"])) for each in letters] == [
        (sqlstate, 200),
        (sqlstate, 300),
    ]
    assert all(each["reason"] for each in letters)
    assert not (await gateway.store(batch_of(4))).dead


async def test_a_dead_letter_is_the_whole_metric(database: Database, reader: Reader) -> None:
    """To the last bit of its value and the last character of its labels."""
    await reader.execute("ALTER TABLE metrics ADD CONSTRAINT none CHECK (false) NOT VALID")
    labels = label_set({"a": "ü€\n", "b": ""})
    bad = Row(1_790_000_000_123_456, "sérvice", "m", 0.1 + 0.2, labels.id)
    await Gateway(database).store(MetricBatch.of_rows([bad], {labels.id: labels.document}))
    letter = await reader.fetchrow(
        "SELECT time, (metric->>'value')::float8, metric->>'service_name', metric->'labels' FROM dead_letters"
    )
    assert letter is not None
    time, value, service, found = letter
    assert time.timestamp() == 1_790_000_000.123456
    assert (value, service) == (0.1 + 0.2, "sérvice")
    assert json.loads(found) == {"a": "ü€\n", "b": ""}


async def test_a_text_that_the_encoding_lacks_is_that_rows_fault(postgres: str) -> None:
    """In a LATIN1 database: names and labels with other letters are refused, also as label sets, and kept whole."""
    async with fresh_database(postgres) as url:
        server = await asyncpg.connect(url)
        await server.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        )
        await server.close()
        try:
            async with opened(url.replace(url.split("?")[0].rsplit("/", 1)[1], "latin")) as database:
                euro, umlaut = label_set({"a": "€"}), label_set({"a": "ü"})
                rows = [
                    row(1, "ü", label_set_id=umlaut.id),
                    row(2, "€"),
                    row(3, label_set_id=euro.id),
                    row(4),
                ]
                sets = {each.id: each.document for each in (euro, umlaut)}
                outcome = await Gateway(database).store(MetricBatch.of_rows(rows, sets))
                assert states(outcome.dead) == [(1, "22P05"), (2, "22P05")]
                stored = await database.transactions.execute(
                    "SELECT array_agg(value ORDER BY value) FROM metrics"
                )
                assert stored == [1, 4]
        finally:
            server = await asyncpg.connect(url)
            await server.execute("DROP DATABASE latin WITH (FORCE)")
            await server.close()


async def test_one_bad_row_among_many_is_found(database: Database, reader: Reader) -> None:
    """By halving, in a few dozen steps."""
    await reader.execute("ALTER TABLE metrics ADD CONSTRAINT other CHECK (value <> 31337)")
    rows = MetricBatch.of_rows([row(value) for value in range(50_000)], {})
    assert states((await Gateway(database).store(rows)).dead) == [(31_337, "23514")]
    assert await count_in(reader, "metrics") == 49_999


async def test_when_all_rows_are_bad_nothing_blocks(database: Database, reader: Reader) -> None:
    """However many: the work is bounded, and what comes next is stored."""
    await reader.execute("ALTER TABLE metrics ADD CONSTRAINT none CHECK (value < 0) NOT VALID")
    gateway = Gateway(database)
    outcome = await gateway.store(MetricBatch.of_rows([row(value) for value in range(20_000)], {}))
    assert len(outcome.dead) == 20_000
    assert await count_in(reader, "dead_letters") == 20_000
    await gateway.store(batch_of(-1))
    assert await values_in(reader) == [-1]


async def test_a_request_remembers_which_of_its_rows_are_dead(database: Database, reader: Reader) -> None:
    """Counted from its own first row, so that a repetition is told the same."""
    await reader.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 100)")
    await Gateway(database).store(batch_of(1, 2, 200, 3, 300), [placed(1, 2, "a"), placed(3, 2, "b")])
    found = await database.stored_requests([("", "a"), ("", "b"), ("", "c")], 3600)
    assert set(found) == {("", "a"), ("", "b")}
    assert states(found["", "a"].dead) == [(1, "23514")]
    assert states(found["", "b"].dead) == [(1, "23514")]


async def test_a_failure_of_the_server_meanwhile_commits_nothing(database: Database, reader: Reader) -> None:
    """Neither good rows nor dead letters nor the cursor: all of it is tried again."""
    await reader.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 100)")
    gateway = Gateway(database)
    await gateway.store(batch_of(0))
    await reader.execute("ALTER TABLE dead_letters RENAME TO away")
    with pytest.raises(Exception, match="dead_letters"):
        await gateway.store(batch_of(1, 200))
    assert await values_in(reader) == [0]
    assert await gateway.cursor() == 1
    await reader.execute("ALTER TABLE away RENAME TO dead_letters")
    assert states((await gateway.store(batch_of(1, 200))).dead) == [(1, "23514")]
    assert await values_in(reader) == [0, 1]


async def test_a_killed_connection_while_rows_are_separated_is_retryable(
    database: Database, reader: Reader
) -> None:
    """StorageUnavailable, and nothing is committed."""
    await reader.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.value = 7 THEN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
        " IF NEW.value >= 100 THEN RAISE EXCEPTION 'too high'; END IF; RETURN NEW; END $$;"
        " CREATE TRIGGER die BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION die()"
    )
    gateway = Gateway(database)
    with pytest.raises(StorageUnavailable):
        await gateway.store(batch_of(200, 7))
    assert await gateway.cursor() in (None, 0)
    assert await count_in(reader, "dead_letters") == 0
