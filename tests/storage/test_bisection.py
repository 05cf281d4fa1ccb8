"""Rows that the database refuses: the others are stored, those are dead letters, and nothing blocks what comes
after them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from ingestor.errors import SchemaProblem, StorageError, StorageUnavailable
from ingestor.model import MetricBatch, Row, label_set
from ingestor.storage import repository
from ingestor.storage.bisection import Bisection
from tests.conftest import fresh_database
from tests.storage.deliveries import (
    Gateway,
    Reader,
    batch_of,
    connected,
    count_in,
    opened,
    placed,
    row,
    states,
    until,
    values_in,
)

_FUNCTION = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;"
_BEFORE = "CREATE TRIGGER refuse BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION refuse();"
_DEFERRED = """
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON metrics DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_RAISE = "IF NEW.value >= 1e6 THEN RAISE EXCEPTION 'too large for us: %', NEW.value; END IF;"
CHECK = "ALTER TABLE metrics ADD CONSTRAINT small CHECK (value < 1e6)"
RAISING = _FUNCTION.format(_RAISE) + _BEFORE
LONG = random.Random(1).randbytes(5_000).hex()


class Poison(NamedTuple):
    """What an operator did, a row that is refused since, and how that is told."""

    statements: str
    row: Row
    sqlstate: str
    reason: str


POISON = {
    "CHECK": Poison(CHECK, row(1e6), "23514", "small"),
    "a trigger's RAISE": Poison(RAISING, row(1e6), "P0001", "too large for us: 1000000"),
    "a trigger at COMMIT": Poison(_FUNCTION.format(_RAISE) + _DEFERRED, row(1e6), "P0001", "too large"),
    "a trigger's NULL": Poison(
        _FUNCTION.format("NEW.service_name = nullif(NEW.service_name, 'none');") + _BEFORE,
        row(1.0, service="none"),
        "23502",
        "service_name",
    ),
    "a trigger's division": Poison(
        _FUNCTION.format("NEW.value = 1 / NEW.value;") + _BEFORE, row(0.0), "22012", "division by zero"
    ),
    "domain": Poison(
        "DROP VIEW labeled_metrics; CREATE DOMAIN short AS text CHECK (length(value) < 10);"
        "ALTER TABLE metrics ALTER COLUMN metric_name TYPE short",
        row(1.0, name="much too long"),
        "23514",
        "short",
    ),
    "varchar": Poison(
        "DROP VIEW labeled_metrics; ALTER TABLE metrics ALTER COLUMN metric_name TYPE varchar(9)",
        row(1.0, name="much too long"),
        "22001",
        "too long",
    ),
    "unique index": Poison("CREATE UNIQUE INDEX ON metrics (time, value)", row(-1.0), "23505", "unique"),
    "foreign key": Poison(
        "CREATE TABLE services (name text PRIMARY KEY); INSERT INTO services VALUES ('s');"
        "ALTER TABLE metrics ADD FOREIGN KEY (service_name) REFERENCES services",
        row(1.0, service="unknown"),
        "23503",
        "foreign key",
    ),
    "index": Poison("CREATE INDEX ON metrics (metric_name)", row(1.0, name=LONG), "54000", "index row"),
    "NUL": Poison("", row(1.0, name="a\0b"), "22021", "0x00"),
}


def mixed(rows: int, poison: Row, *at: int) -> MetricBatch:
    """Good rows with positive values, and that row at those places."""
    made = [row(float(number + 1)) for number in range(rows)]
    for place in at:
        made[place] = poison
    return MetricBatch.of_rows(made, {})


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_what_poisons_a_row_keeps_that_row_out(
    gateway: Gateway, reader: Reader, poison: Poison
) -> None:
    """Of a thousand rows exactly the refused ones are dead, with SQLSTATE and reason; all others are stored."""
    await gateway.store(batch_of(-1.0))
    if poison.statements:
        await reader.execute(poison.statements)
    outcome = await gateway.store(mixed(1000, poison.row, 3, 700))
    assert states(outcome.dead) == [(3, poison.sqlstate), (700, poison.sqlstate)]
    assert all(poison.reason in each.reason for each in outcome.dead)
    assert await count_in(reader, "metrics") == 999
    assert await count_in(reader, "dead_letters") == 2
    assert await gateway.cursor() == 2
    assert not (await gateway.store(batch_of(2_000.0))).dead


async def test_one_among_fifty_thousand(gateway: Gateway, reader: Reader) -> None:
    """It is found, and every other row is there once."""
    await reader.execute(CHECK)
    outcome = await gateway.store(mixed(50_000, row(1e6), 31_234))
    assert states(outcome.dead) == [(31_234, "23514")]
    found = await reader.fetchrow("SELECT count(*), count(DISTINCT value), max(value) FROM metrics")
    assert found is not None
    assert tuple(found) == (49_999, 49_999, 50_000.0)


@pytest.mark.parametrize("rows", [1, 2, 6_001])
async def test_nothing_but_poison(gateway: Gateway, reader: Reader, rows: int) -> None:
    """Every row is a dead letter, and the cursor has moved."""
    await reader.execute(CHECK)
    outcome = await gateway.store(mixed(rows, row(1e6), *range(rows)))
    assert states(outcome.dead) == [(number, "23514") for number in range(rows)]
    assert await count_in(reader, "dead_letters") == rows
    assert (await count_in(reader, "metrics"), await gateway.cursor()) == (0, 1)


async def test_poison_that_is_spread_thin(
    gateway: Gateway, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the probes suffice for: still every good row is stored, and no other."""
    probes = 0
    copy_range = Bisection._copy_range

    async def counted(self: Bisection, *arguments: Any) -> None:
        nonlocal probes
        probes += 1
        await copy_range(self, *arguments)

    monkeypatch.setattr(Bisection, "_copy_range", counted)
    await reader.execute(CHECK)
    at = range(0, 20_000, 40)
    outcome = await gateway.store(mixed(20_000, row(1e6), *at))
    assert [each.row for each in outcome.dead] == list(at)
    assert await values_in(reader) == [float(n + 1) for n in range(20_000) if n % 40]
    assert probes == 64


async def test_rows_that_refuse_each_other(gateway: Gateway, reader: Reader) -> None:
    """Of equals under a unique index one is stored, whichever ranges they fall into."""
    await gateway.store(batch_of(-1.0))
    await reader.execute("CREATE UNIQUE INDEX ON metrics (time, value)")
    outcome = await gateway.store(batch_of(*range(500), *range(500)))
    assert len(outcome.dead) == 500
    assert await values_in(reader) == [-1.0, *map(float, range(500))]


async def test_requests_know_their_dead_rows(gateway: Gateway, reader: Reader) -> None:
    """A duplicate before them shifts nothing: rows are numbered as in the delivery."""
    await reader.execute(CHECK)
    await gateway.store(batch_of(1.0, 2.0), [placed(0, 2, "known")])
    outcome = await gateway.store(
        batch_of(1.0, 2.0, 3.0, 1e6, 2e6, 4.0), [placed(0, 2, "known"), placed(2, 2, "a"), placed(4, 2, "b")]
    )
    assert (states(outcome.dead), list(outcome.duplicates)) == ([(3, "23514"), (4, "23514")], [0])
    found = await gateway.database.stored_requests([("", id_) for id_ in ("known", "a", "b")], 60)
    assert {key[1]: states(each.dead) for key, each in found.items()} == {
        "known": [],
        "a": [(1, "23514")],
        "b": [(0, "23514")],
    }
    letters = await reader.fetch('SELECT "row", request_id FROM dead_letters ORDER BY "row"')
    assert [tuple(each) for each in letters] == [(3, b"a"), (4, b"b")]


@pytest.fixture
async def latin1_url(postgres: str) -> AsyncIterator[str]:
    """The address of an empty database in LATIN1, which lacks '€'."""
    options = "ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    async with fresh_database(postgres, options) as url:
        yield url


async def test_texts_that_the_databases_encoding_lacks(latin1_url: str) -> None:
    """In names, label names and label values: their rows are dead letters, whole; label sets of rows that are
    stored are stored, and ids in any script are known again."""
    fits, late, no_value, no_name = (
        label_set({"place": "Zürich"}),
        label_set({"place": "Genève"}),
        label_set({"price": "10 \u20ac"}),
        label_set({"\U0001f600": "x"}),
    )
    rows = [
        row(0.0, service="ünï", label_set_id=fits.id),
        row(1.0, service="\u20ac"),
        row(2.0, name="\U0001f600"),
        row(3.0, label_set_id=no_value.id),
        row(4.0, label_set_id=no_name.id),
        *[row(5.0, label_set_id=fits.id)] * 300,
        *[row(5.0, label_set_id=late.id)] * 300,  # in a range of its own
    ]
    batch = MetricBatch.of_rows(rows, {each.id: each.document for each in (fits, late, no_value, no_name)})
    async with opened(latin1_url) as database, connected(latin1_url) as reader:
        gateway = Gateway(database)
        outcome = await gateway.store(batch, [placed(0, 1, "\u20ac")])
        assert states(outcome.dead) == [(at, "22P05") for at in range(1, 5)]
        assert await values_in(reader) == [0.0, *[5.0] * 600]
        assert await count_in(reader, "label_sets") == 2
        letters = await reader.fetch('SELECT metric::text FROM dead_letters ORDER BY "row"')
        assert [each[0].count("\\u20ac") for each in letters] == [1, 0, 1, 0]
        again = await gateway.store(batch_of(0.0), [placed(0, 1, "\u20ac")])
        assert list(again.duplicates) == [0]


_MARKER = -7.0
_KILL_SLEEPER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE wait_event = 'PgSleep' AND datname = current_database()
"""


async def _nothing_then_all(gateway: Gateway, reader: Reader, batch: MetricBatch) -> None:
    """Nothing was committed; and without the trouble all is stored that can be."""
    for table in ("metrics", "dead_letters", "request_ids"):
        assert await count_in(reader, table) == 0
    assert await gateway.cursor() in (None, 0)
    await reader.execute(f"CREATE OR REPLACE {_FUNCTION.format(_RAISE).removeprefix('CREATE ')}")
    outcome = await gateway.store(batch, [placed(0, 1, "r")])
    assert len(outcome.dead) == 1
    assert await count_in(reader, "metrics") == batch.rows - 1
    assert (await count_in(reader, "request_ids"), await gateway.cursor()) == (1, 1)


@pytest.mark.parametrize("marked", [4, 900], ids=["beside the poison", "in another range"])
@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [("40001", StorageUnavailable), ("53100", StorageUnavailable), ("42501", SchemaProblem)],
)
async def test_a_failure_while_rows_are_separated_commits_nothing(
    gateway: Gateway, reader: Reader, sqlstate: str, kind: type[StorageError], marked: int
) -> None:
    """A row's neighbours don't become poison because the disk was full meanwhile."""
    trouble = f"IF NEW.value = {_MARKER} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END IF;"
    await reader.execute(_FUNCTION.format(_RAISE + trouble) + _BEFORE)
    made = [row(float(number)) for number in range(1000)]
    made[3], made[marked] = row(1e6), row(_MARKER)
    batch = MetricBatch.of_rows(made, {})
    with pytest.raises(kind) as told:
        await gateway.store(batch, [placed(0, 1, "r")])
    assert told.value.sqlstate == sqlstate
    await _nothing_then_all(gateway, reader, batch)


async def test_a_failure_that_would_pass_ends_it_too(gateway: Gateway, reader: Reader) -> None:
    """It is met once, in a range without poison: that isn't tried again by parts, as if a row were at fault."""
    once = f"""
        IF NEW.value = {_MARKER} THEN
          IF nextval('meetings') = 1 THEN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END IF;
        END IF;"""
    await reader.execute("CREATE SEQUENCE meetings;" + _FUNCTION.format(_RAISE + once) + _BEFORE)
    made = [row(float(number)) for number in range(1000)]
    made[3], made[900] = row(1e6), row(_MARKER)
    batch = MetricBatch.of_rows(made, {})
    with pytest.raises(StorageUnavailable):
        await gateway.store(batch, [placed(0, 1, "r")])
    await _nothing_then_all(gateway, reader, batch)


@pytest.mark.parametrize("marked", [4, 900], ids=["beside the poison", "in another range"])
async def test_a_backend_killed_while_rows_are_separated_commits_nothing(
    gateway: Gateway, reader: Reader, marked: int
) -> None:
    """Neither what was stored already, nor dead letters; the next attempt begins anew."""
    trouble = f"IF NEW.value = {_MARKER} THEN PERFORM pg_sleep(30); END IF;"
    await reader.execute(_FUNCTION.format(_RAISE + trouble) + _BEFORE)
    made = [row(float(number)) for number in range(1000)]
    made[3], made[marked] = row(1e6), row(_MARKER)
    batch = MetricBatch.of_rows(made, {})
    storing = asyncio.create_task(gateway.store(batch, [placed(0, 1, "r")]))
    await until(lambda: reader.fetchval(_KILL_SLEEPER))
    with pytest.raises(StorageUnavailable):
        await storing
    await _nothing_then_all(gateway, reader, batch)


async def test_separating_may_take_longer_than_storing(
    gateway: Gateway, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit is from step to step: a batch whose rows are slow to refuse is not begun anew for ever."""
    monkeypatch.setattr(repository, "_STORE_S_MAX", 1.0)
    slow = "PERFORM pg_sleep(0.002); " + _RAISE
    await reader.execute(_FUNCTION.format(slow) + _BEFORE)
    outcome = await gateway.store(mixed(1_000, row(1e6), *range(1_000)))
    assert len(outcome.dead) == 1_000


async def test_probing_may_take_longer_than_storing_too(
    gateway: Gateway, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranges that are slow to store, beside one that is refused."""
    monkeypatch.setattr(repository, "_STORE_S_MAX", 1.5)
    slow = f"IF NEW.value = {_MARKER} THEN PERFORM pg_sleep(0.9); END IF; " + _RAISE
    await reader.execute(_FUNCTION.format(slow) + _BEFORE)
    made = [row(float(number)) for number in range(1_024)]
    made[0], made[300], made[600] = row(1e6), row(_MARKER), row(_MARKER)
    outcome = await gateway.store(MetricBatch.of_rows(made, {}))
    assert [each.row for each in outcome.dead] == [0]
