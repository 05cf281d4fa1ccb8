"""The roles of deploy/roles.sql on a real TimescaleDB."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from tests.deploy.filled import check_dashboards
from tests.gateway import gateway
from tests.roles import (
    INGEST,
    MIGRATE,
    NOT_FOR_INGEST,
    NOT_FOR_READ,
    READ,
    as_role,
    not_refused,
    roles,
    run_script,
    taken_by_shadows,
)
from tests.server_process import run


async def test_each_role_does_its_work_and_nothing_else(timescale_url: str, tmp_path: Path) -> None:
    """Migrate makes a hypertable with its column store, without the right to make extensions; ingest fills both
    stores; read reads."""
    async with roles(timescale_url):
        code, out, err = await run("migrate", cwd=tmp_path, database_url=as_role(timescale_url, MIGRATE))
        assert (code, err) == (0, "")
        assert "metrics is a hypertable" in out
        await run_script(timescale_url)
        url = as_role(timescale_url, INGEST)
        async with gateway(url) as served:
            metric = {"serviceName": "s", "metricName": "m", "value": 1, "labels": {"region": "eu"}}
            for size in (100, 1):
                batch = {"metrics": [metric] * size, "ack": "ACK_LEVEL_COMMITTED"}
                assert await served.post("/v1/metrics:batch", batch) == (
                    200,
                    {"accepted": str(size), "rejected": []},
                )
            assert served.count("ingestor_column_store_batches_total") >= 1
            assert served.count("ingestor_column_store_fallbacks_total") == 0
        assert await not_refused(url, *NOT_FOR_INGEST) == []
        reader = await asyncpg.connect(as_role(timescale_url, READ))
        assert (
            await reader.fetchval("SELECT count(*) FROM labeled_metrics WHERE labels->>'region' = 'eu'")
            == 101
        )
        await reader.close()
        assert await not_refused(as_role(timescale_url, READ), *NOT_FOR_READ) == []
        for role in (INGEST, READ):
            assert not await taken_by_shadows(timescale_url, role)


async def test_the_role_that_reads_fills_the_dashboards(timescale_url: str) -> None:
    """Every query of deploy/grafana runs on a hypertable, too, and gives rows."""
    await check_dashboards(timescale_url)
