"""Against a real PostgreSQL: verification finds what is missing, doubled, wrong or extra, and only that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import asyncpg
import pytest
from grpclib.const import Status

from ingestor.loadgen import LoadPlan, LoadReport, Verification, run, verify
from tests.loadgen.fake_server import ACCEPT, FakeServer, Reply, Row

# The columns that the ingestor's own migrations make, as far as a reader sees them.
TABLES = """
    CREATE TABLE metrics (time timestamptz NOT NULL, service_name text NOT NULL, metric_name text NOT NULL,
                          value double precision, label_set_id bigint NOT NULL DEFAULT 0);
"""
LABELS = """
    CREATE TABLE label_sets (id bigint PRIMARY KEY, labels jsonb NOT NULL);
    CREATE VIEW labeled_metrics AS SELECT time, service_name, metric_name, value, labels
      FROM metrics LEFT JOIN label_sets ON id = label_set_id;
"""


@dataclass
class Trial:
    """A server that stores nothing, and the database that the test fills in its place."""

    server: FakeServer
    plan: LoadPlan
    database: asyncpg.Connection[asyncpg.Record]
    database_url: str

    async def store(self, rows: Iterable[Row]) -> None:
        records = [(row.time, row.service_name, row.metric_name, row.value) for row in rows]
        columns = ("time", "service_name", "metric_name", "value")
        await self.database.copy_records_to_table("metrics", records=records, columns=columns)

    async def sent(self) -> LoadReport:
        """A run of which the database holds what the server took."""
        report = await run(self.plan)
        await self.store(self.server.taken)
        return report

    async def verify(
        self, report: LoadReport, settle_s: float = 0.0, extra_wait_s: float = 0.0
    ) -> Verification:
        waits = {"settle_s": settle_s, "extra_wait_s": extra_wait_s}
        return await verify(self.database_url, self.plan, report, **waits)


@pytest.fixture
async def trial(server: FakeServer, plan: Callable[..., LoadPlan], database_url: str) -> AsyncIterator[Trial]:
    database = await asyncpg.connect(database_url)
    await database.execute(TABLES)
    # One series, so that two rows differ in value and time alone.
    yield Trial(server, plan(series=1), database, database_url)
    await database.close()


def faults(result: Verification) -> dict[str, int]:
    counts = result.model_dump(include={"missing", "duplicated", "wrong", "extra"})
    return {name: number for name, number in counts.items() if number}


async def test_a_faithful_server_is_verified(trial: Trial) -> None:
    """All rows there, once and right, beside those of another run."""
    trial.plan = trial.plan.model_copy(update={"count": 6_000, "batch": 1000, "late_percent": 30})
    report = await trial.sent()
    await trial.database.execute("INSERT INTO metrics VALUES (now(), 'loadgen-other-1', 'metric_1', 5)")
    result = await trial.verify(report)
    assert result.ok
    assert faults(result) == {}
    assert result.acknowledged == result.stored == 6_000


DAMAGE = {
    "DELETE FROM metrics WHERE value = 17": {"missing": 1},
    "INSERT INTO metrics SELECT * FROM metrics WHERE value = 17": {"duplicated": 1},
    "UPDATE metrics SET time = time + interval '1 microsecond' WHERE value = 17": {"wrong": 1},
    "UPDATE metrics SET time = 'infinity' WHERE value = 17": {"wrong": 1},
    "UPDATE metrics SET time = time - interval '2 hours'": {"wrong": 200},
    "UPDATE metrics SET metric_name = 'metric_x' WHERE value = 17": {"wrong": 1},
    "UPDATE metrics SET service_name = service_name || '0' WHERE value = 17": {"wrong": 1},
    "UPDATE metrics SET service_name = 'another' WHERE value = 17": {"missing": 1},
    "UPDATE metrics SET value = 18 WHERE value = 17": {"missing": 1, "duplicated": 1, "wrong": 1},
    "UPDATE metrics SET value = 17.5 WHERE value = 17": {"missing": 1, "extra": 1},
    "UPDATE metrics SET value = 'NaN' WHERE value = 17": {"missing": 1, "extra": 1},
    "UPDATE metrics SET value = NULL WHERE value = 17": {"missing": 1, "extra": 1},
    "INSERT INTO metrics SELECT time, service_name, metric_name, 200 FROM metrics LIMIT 1": {"extra": 1},
    "TRUNCATE metrics": {"missing": 200},
}


async def test_whatever_differs_is_found(trial: Trial) -> None:
    """One row missing, doubled, wrong in one column or too much: it is counted as what it is, and named."""
    report = await trial.sent()
    for damage, fault in DAMAGE.items():
        await trial.database.execute(damage)
        result = await trial.verify(report)
        assert faults(result) == fault, damage
        assert not result.ok
        assert {line.split(":")[0] for line in result.examples} == fault.keys()
        await trial.database.execute("TRUNCATE metrics")
        await trial.store(trial.server.taken)
    assert (await trial.verify(report)).ok


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(refuse=Status.UNAVAILABLE), "its request was refused"),
        (Reply(reject=range(10)), "its request was rejected"),
    ],
)
async def test_a_row_that_was_not_taken_must_not_be_stored(trial: Trial, reply: Reply, why: str) -> None:
    """A refusal and a rejection are promises too."""
    trial.server.reply = lambda rows, _: reply if rows[0].value == 50 else ACCEPT
    report = await trial.sent()
    assert (await trial.verify(report)).ok
    refused = next(arrival.rows for arrival in trial.server.arrivals if arrival.rows[0].value == 50)
    await trial.store(refused[:1])
    result = await trial.verify(report)
    assert faults(result) == {"extra": 1}
    assert why in result.examples[0]


@pytest.mark.parametrize("taken", [True, False])
async def test_an_unanswered_row_may_be_stored_once_or_not(trial: Trial, taken: bool) -> None:
    """Either is fine; twice is not."""
    trial.server.reply = lambda rows, _: Reply(miscount=1, taken=taken) if rows[0].value == 50 else ACCEPT
    report = await trial.sent()
    result = await trial.verify(report)
    assert result.ok
    assert result.unanswered_stored == (10 if taken else 0)
    await trial.store(row for row in trial.server.taken if row.value == 55)
    result = await trial.verify(report)
    assert faults(result) == ({"duplicated": 1} if taken else {})


async def test_labels_are_compared_where_the_view_is(trial: Trial) -> None:
    """Without the view they are not, and the result says so."""
    trial.plan = trial.plan.model_copy(update={"labels": 2})
    report = await trial.sent()
    assert not (await trial.verify(report)).labels_checked
    await trial.database.execute(LABELS)
    labels = trial.server.taken[0].labels
    await trial.database.executemany(
        "INSERT INTO label_sets VALUES ($1, $2)",
        [(0, json.dumps(labels)), (1, json.dumps(labels | {"label_1": "x"}))],
    )
    result = await trial.verify(report)
    assert result.ok
    assert result.labels_checked
    await trial.database.execute("UPDATE metrics SET label_set_id = 1 WHERE value = 3")
    assert faults(await trial.verify(report)) == {"wrong": 1}
    await trial.database.execute("UPDATE metrics SET label_set_id = 2 WHERE value = 3")
    assert faults(await trial.verify(report)) == {"wrong": 1}


async def test_rows_that_come_later_are_waited_for(trial: Trial) -> None:
    """As long as they come within the bound, they are not missing; one too many right after is seen."""
    report = await run(trial.plan)
    verification = asyncio.create_task(trial.verify(report, settle_s=10, extra_wait_s=0.3))
    await trial.store(trial.server.taken[:100])
    await asyncio.sleep(0.5)
    await trial.store(trial.server.taken[100:])
    await asyncio.sleep(0.1)
    await trial.store(trial.server.taken[:1])
    result = await verification
    assert faults(result) == {"duplicated": 1}
    assert 0.3 < result.waited_s < 5


async def test_a_count_reached_by_other_rows_does_not_end_the_wait(trial: Trial) -> None:
    """An unanswered row that is stored doesn't stand in for an acknowledged one that is on its way."""
    trial.server.reply = lambda rows, _: Reply(miscount=1) if rows[0].value == 50 else ACCEPT
    report = await run(trial.plan)
    await trial.store(trial.server.taken[10:])
    verification = asyncio.create_task(trial.verify(report, settle_s=10))
    await asyncio.sleep(0.6)
    assert not verification.done()
    await trial.store(trial.server.taken[:10])
    assert (await verification).ok
