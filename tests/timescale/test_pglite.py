"""TimescaleDB's SQL without a server: the contract on PGlite, PostgreSQL in WebAssembly.

Skipped, with the reason, where Node.js or npm is missing, or npm can't fetch the packages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from ingestor.storage.facts import facts
from ingestor.storage.migrate import migrate
from ingestor.storage.transactions import AnyConnection, Pool
from tests.npm import Missing
from tests.timescale.contract import TimescaleContract
from tests.timescale.pglite import pglite

# The first test waits for npm, which may have 15 MB to fetch.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="session")
def pglite_url() -> Iterator[str]:
    """The address of PGlite."""
    try:
        with pglite() as url:
            yield url
    except Missing as missing:
        pytest.skip(f"no PGlite: {missing}")


@pytest.fixture
async def pool(pglite_url: str) -> AsyncIterator[Pool]:
    """One connection, and so one empty database."""
    async with asyncpg.create_pool(pglite_url, min_size=1, max_size=1, reset=_keep) as opened:
        yield opened


async def _keep(_: AnyConnection) -> None:
    """Doesn't RESET ALL: PGlite was started with a search_path without `public`."""


class TestPglite(TimescaleContract):
    """TimescaleDB 2.23 on PostgreSQL 17."""

    async def test_it_is_what_we_think(self, pool: Pool) -> None:
        """The pinned packages hold the versions that this suite stands for."""
        await migrate(pool)
        async with pool.acquire() as connection:
            found = await facts(connection)
        assert found.postgresql.startswith("17.")
        assert str(found.timescaledb).startswith("2.23.")
