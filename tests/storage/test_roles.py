"""The roles of deploy/roles.sql on plain PostgreSQL: each can do its work, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from ingestor.errors import DatabaseProblem
from tests.gateway import gateway
from tests.roles import (
    INGEST,
    MIGRATE,
    NOT_FOR_INGEST,
    NOT_FOR_READ,
    READ,
    as_role,
    not_refused,
    not_refused_temporary_tables,
    roles,
    run_script,
    taken_by_shadows,
)
from tests.server_process import run
from tests.storage.deliveries import opened


@pytest.fixture
async def migrated(database_url: str) -> AsyncIterator[str]:
    """A database set up as deploy/roles.sql says; the address is an administrator's."""
    async with roles(database_url):
        async with opened(as_role(database_url, MIGRATE)) as database:
            assert database.facts.role == MIGRATE
        await run_script(database_url)
        yield database_url


async def test_ingest_serves(migrated: str) -> None:
    """It stores rows with labels, in new weeks, too; sets aside what the database refuses; and knows a request that
    is repeated. Then it has no right beyond that."""
    url = as_role(migrated, INGEST)
    admin = await asyncpg.connect(migrated)
    await admin.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 100)")
    old = (datetime.now(UTC) - timedelta(weeks=9)).isoformat()
    metric = {"serviceName": "s", "metricName": "m", "value": 1, "labels": {"region": "eu"}}
    async with gateway(url) as served:
        batch = {
            "metrics": [metric, {**metric, "time": old}],
            "ack": "ACK_LEVEL_COMMITTED",
            "requestId": "once",
        }
        for _ in range(2):
            assert await served.post("/v1/metrics:batch", batch) == (200, {"accepted": "2", "rejected": []})
        status, answer = await served.post(
            "/v1/metrics", {**metric, "value": 101, "ack": "ACK_LEVEL_COMMITTED"}
        )
        assert (status, "low" in answer["message"]) == (400, True)
    assert await admin.fetchval("SELECT count(*) FROM labeled_metrics WHERE labels->>'region' = 'eu'") == 2
    assert await admin.fetchval("SELECT count(*) FROM dead_letters") == 1
    assert await admin.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'metrics'::regclass") == 2
    await admin.close()
    assert await not_refused(url, *NOT_FOR_INGEST) == []
    week = datetime.now(UTC).strftime("metrics_%Gw%V")
    assert await not_refused(url, f"SELECT FROM {week}", f"DELETE FROM {week}", f"DROP TABLE {week}") == []


async def test_read_reads_metrics_and_nothing_else(migrated: str) -> None:
    """Tables and view; it can write nothing even where it would be let, and its queries have an end."""
    reader = await asyncpg.connect(as_role(migrated, READ))
    for relation in ("metrics", "label_sets", "labeled_metrics"):
        assert await reader.fetch(f"SELECT * FROM {relation}") == []
    assert await reader.fetchval("SHOW statement_timeout") == "1min"
    await reader.close()
    assert await not_refused(as_role(migrated, READ), *NOT_FOR_READ) == []


async def test_a_gateway_that_answers_queries(migrated: str) -> None:
    """With serve_reads=on ingest reads as well, and without it no more; all else stays as it was."""
    url = as_role(migrated, INGEST)
    reads, beyond = NOT_FOR_INGEST[:3], NOT_FOR_INGEST[3:-1]
    await run_script(migrated, serve_reads="on")
    assert await not_refused(url, *NOT_FOR_INGEST) == [*reads, NOT_FOR_INGEST[-1]]
    assert await not_refused(url, *beyond) == []
    await run_script(migrated)
    assert await not_refused(url, *reads) == []


async def test_migrate_replays_dead_letters(migrated: str, tmp_path: Path) -> None:
    """Which takes the rights of an owner; ingest is refused with what it lacks."""
    code, _, _ = await run("dead-letters", "list", cwd=tmp_path, database_url=as_role(migrated, INGEST))
    assert code == 0
    code, _, _ = await run(
        "dead-letters", "purge", "--all", "--yes", cwd=tmp_path, database_url=as_role(migrated, MIGRATE)
    )
    assert code == 0


async def test_what_runs_as_its_owner_does_so_for_its_purpose_alone(migrated: str) -> None:
    """No role can make temporary tables; and with some in the place of system tables it gains nothing. Who stores
    may call both functions."""
    assert await not_refused(as_role(migrated, INGEST), "SELECT ingestor_summarize_metrics()") != []
    for role in (INGEST, READ):
        temporary = await not_refused_temporary_tables(as_role(migrated, role))
        assert temporary == ["SET default_transaction_read_only = off"]
        assert not await taken_by_shadows(migrated, role)


async def test_a_role_without_the_owners_functions_is_told_what_it_lacks(migrated: str) -> None:
    """Before it serves, as the statements that grant it."""
    admin = await asyncpg.connect(migrated)
    await admin.execute(f"REVOKE EXECUTE ON FUNCTION ingestor_summarize_metrics() FROM {INGEST}")
    await admin.close()
    with pytest.raises(DatabaseProblem, match=r"GRANT EXECUTE ON FUNCTION ingestor_summarize_metrics\(\) TO"):
        async with opened(as_role(migrated, INGEST)):
            pass
