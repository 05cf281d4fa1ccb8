"""An open database, as the rest of the server uses it: what it is, the journals' cursors and requests in it, its
repository and its reader.

It opens nothing and checks nothing beforehand (`storage.opening` does); what fails here is a StorageError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from ingestor.model import RequestKey, StoredRequest
from ingestor.storage.column_store import ColumnStore
from ingestor.storage.copy import Encoder, NativeEncoder, ReferenceEncoder, native_available
from ingestor.storage.cursors import Cursors
from ingestor.storage.facts import DatabaseFacts
from ingestor.storage.faults import FAILURES, describe, storage_errors
from ingestor.storage.migrate import Migration
from ingestor.storage.partitions import WeeklyPartitions
from ingestor.storage.pool import move_pool
from ingestor.storage.reading import DatabaseReader, ReadLimits
from ingestor.storage.repository import MetricRepository, NoPartitions
from ingestor.storage.request_ids import purge, stored_requests
from ingestor.storage.transactions import Pool, TransactionManager

REQUEST_ID_WINDOW_S = 86_400.0

# What is still read then is read for nobody.
_READER_CLOSE_S = 1.0
_SUMMARIZE = "SELECT ingestor_summarize_metrics()"
_TIMESCALEDB_SCHEMA = """
SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
  WHERE e.extname = 'timescaledb'
"""
_PURGED_MAX, _PURGES_MAX = 5_000, 1_000


class Database:
    """An open database. `identity` says which one, whatever its address; a copy or a restored backup has the same.
    `close` it in the end."""

    def __init__(
        self,
        pool: Pool,
        facts: DatabaseFacts,
        identity: UUID,
        applied: list[Migration],
        column_store: ColumnStore | None,
    ) -> None:
        self.facts = facts
        self.identity = identity
        self.applied = applied
        self.column_store = column_store
        self._pool = pool
        self.transactions = TransactionManager(pool)
        self._reader: DatabaseReader | None = None
        self._cursors = Cursors(self.transactions, identity)

    def repository(
        self, encoder: Encoder | None, journal: UUID, *, request_id_window_s: float = REQUEST_ID_WINDOW_S
    ) -> MetricRepository:
        """The repository for this journal's deliveries that fits this database's table; it encodes by pgpq where
        that is, unless told."""
        partitioned = self.facts.table == "partitioned"
        return MetricRepository(
            self.transactions,
            WeeklyPartitions(self.transactions) if partitioned else NoPartitions(),
            encoder or (NativeEncoder() if native_available() else ReferenceEncoder()),
            journal,
            self._cursors,
            request_id_window_s=request_id_window_s,
            column_store=self.column_store,
            # What the column store packs, or the partitions' summaries find.
            by_series=partitioned or self.column_store is not None,
        )

    async def cursor(self, journal: UUID) -> int | None:
        """The position up to which this journal is committed here; None when this database has not heard of it."""
        with storage_errors():
            return await self._cursors.position(journal)

    async def begin_cursor(self, journal: UUID, position: int, *, durable: bool) -> None:
        """From now on this process commits this journal here, from `position` on unless its cursor is there
        already. The cursor of one that is not `durable` is purged when nobody uses it any more."""
        with storage_errors():
            await self._cursors.begin(journal, position, durable=durable)

    async def adopt_cursor(self, journal: UUID, position: int, *, durable: bool) -> int:
        """The same for a journal of which another database has all up to `position`: its cursor here is moved on to
        there, if it stands before that. Returns where it stands now."""
        with storage_errors():
            return await self._cursors.adopt(journal, position, durable=durable)

    async def forget_cursor(self, journal: UUID) -> None:
        """The journal has come to its end, and nothing of it will be asked for again."""
        with storage_errors():
            await self._cursors.forget(journal)

    async def stored_requests(
        self, keys: Sequence[RequestKey], window_s: float
    ) -> dict[RequestKey, StoredRequest]:
        """Those of these requests that were committed within the last `window_s` seconds."""
        with storage_errors():
            return await stored_requests(self.transactions, keys, window_s)

    async def summarize(self) -> None:
        """Lets queries of one series pass over what was stored lately of others. Call it now and then."""
        if self.facts.table == "partitioned":
            with storage_errors():
                await self.transactions.execute(_SUMMARIZE)

    async def purge(self, window_s: float) -> int:
        """Deletes request ids that are older, and cursors that nobody uses any more: some thousands at a time, each
        in a transaction of its own. Returns how many; call it now and then."""
        purged = 0
        with storage_errors():
            for _ in range(_PURGES_MAX):
                some = await purge(self.transactions, window_s, _PURGED_MAX)
                purged += some
                if some < _PURGED_MAX:
                    break
            return purged + await self._cursors.purge(_PURGED_MAX)

    async def open_reader(
        self, url: str, limits: ReadLimits, busy: Callable[[], bool] = bool
    ) -> DatabaseReader:
        """A reader with connections of its own, which end with this database's; it gives way while it is `busy`.
        Raises StorageError."""
        schema = None
        if self.facts.timescaledb is not None:
            with storage_errors():
                schema = str(await self.transactions.execute(_TIMESCALEDB_SCHEMA))
        self._reader = await DatabaseReader.open(url, limits, busy, timescaledb_schema=schema)
        return self._reader

    def move(self, url: str) -> None:
        """The same database is at another address from now on: new connections go there."""
        move_pool(self._pool, url)
        if self._reader is not None:
            self._reader.move(url)

    async def problem(self, timeout_s: float) -> str | None:
        """Why the database can't be used at this moment; None when it answers within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.transactions.execute("SELECT 1")
        except TimeoutError:
            return f"the database did not answer within {timeout_s:g} s"
        except FAILURES as error:
            return describe(error)
        return None

    async def close(self, timeout_s: float) -> None:
        """Closes the connections, those that are still busy by force after `timeout_s` seconds."""
        if self._reader is not None:
            await self._reader.close(min(timeout_s, _READER_CLOSE_S))
        try:
            await asyncio.wait_for(self._pool.close(), timeout_s)
        except TimeoutError:
            self._pool.terminate()
