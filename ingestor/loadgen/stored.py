"""Reads a run's rows back from PostgreSQL, page by page.

It only reads, in the order of the database's choice, and holds one page at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import asyncpg

PAGE_ROWS: Final = 10_000
LABELS_VIEW: Final = "labeled_metrics"
# A run id holds no wildcard (see LoadPlan).
_COUNT: Final = "SELECT count(*) FROM metrics WHERE service_name LIKE $1"
_ROWS: Final = "SELECT time, service_name, metric_name, value FROM metrics WHERE service_name LIKE $1"
_LABELED_ROWS: Final = (
    "SELECT time, service_name, metric_name, value, labels FROM labeled_metrics WHERE service_name LIKE $1"
)


class StoredRows:
    """The rows of one run, over one connection."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], run_id: str) -> None:
        self._connection = connection
        self._pattern = f"loadgen-{run_id}-%"

    async def labels_readable(self) -> bool:
        return await self._connection.fetchval("SELECT to_regclass($1)", LABELS_VIEW) is not None

    async def count(self) -> int:
        number: int = await self._connection.fetchval(_COUNT, self._pattern)
        return number

    async def pages(self, *, labels: bool) -> AsyncIterator[list[asyncpg.Record]]:
        """All rows as one snapshot sees them; a fifth column holds labels as JSON text when asked for."""
        async with self._connection.transaction(readonly=True):
            cursor = await self._connection.cursor(_LABELED_ROWS if labels else _ROWS, self._pattern)
            while page := await cursor.fetch(PAGE_ROWS):
                yield page
