"""MetricRepository: stores a batch by binary COPY in one transaction, all of it or nothing.

It neither retries nor drops; it says whose fault a failure is and leaves that to its caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import pyarrow as pa

from ingestor.errors import StorageUnavailable
from ingestor.model import MetricBatch
from ingestor.model.batch import SCHEMA
from ingestor.storage.column_store import DIRECT, ColumnStore
from ingestor.storage.copy import Encoder, stream
from ingestor.storage.faults import FAILURES, classify
from ingestor.storage.label_sets import LabelSets
from ingestor.storage.transactions import Connection, TransactionManager, until_lost

# A server that has not stored a batch by then is asked again on a new connection: a network that swallows packets
# is otherwise noticed by nobody. Waiting for a lock may take longer and is then begun anew.
_STORE_S_MAX = 60.0


_UNLABELED = [name for name in SCHEMA.names if name != "label_set_id"]


class Partitions(Protocol):
    """What must exist before rows can be copied."""

    async def ensure(self, times: pa.Array) -> None: ...
    def forget(self) -> None: ...


class NoPartitions:
    """For a hypertable or an ordinary table: nothing to prepare."""

    async def ensure(self, times: pa.Array) -> None:
        """Nothing."""

    def forget(self) -> None:
        """Nothing."""


class MetricRepository:
    """The table `metrics`, with its label sets."""

    def __init__(
        self,
        transactions: TransactionManager,
        partitions: Partitions,
        encoder: Encoder,
        column_store: ColumnStore | None = None,
    ) -> None:
        self._transactions = transactions
        self._partitions = partitions
        self._encoder = encoder
        self._column_store = column_store
        self._label_sets = LabelSets()

    def arrange(self, batch: MetricBatch) -> MetricBatch:
        """The same rows in the order that suits the table. Pure, and may take milliseconds: call it in a thread."""
        return batch if self._column_store is None else self._column_store.arrange(batch)

    async def bulk_insert_metrics(self, batch: MetricBatch) -> None:
        """BEGIN, insert all, COMMIT. On failure everything is rolled back, and it raises StorageUnavailable
        (the same batch may be stored later) or RowsRefused (it never will be)."""
        # Without labels the table's own default says so, in a fifth fewer bytes.
        columns = batch.columns if batch.label_sets else batch.columns.select(_UNLABELED)
        new_sets = self._label_sets.unknown(batch.label_sets)
        try:
            async with asyncio.timeout(_STORE_S_MAX):
                await self._partitions.ensure(columns.column("time"))
                async with self._transaction(direct=batch.by_series) as connection:
                    await self._label_sets.insert(connection, new_sets)
                    await self._copy(connection, columns)
        except StorageUnavailable:
            await self._forget()
            raise
        except FAILURES as error:
            await self._forget()
            raise classify(error) from error
        self._label_sets.remember(new_sets)

    @asynccontextmanager
    async def _transaction(self, *, direct: bool) -> AsyncIterator[Connection]:
        """One whose COPY writes into the column store (`direct`, if there is one) or rows."""
        if self._column_store is None or not direct:
            async with self._transactions.transaction() as connection:
                yield connection
        else:
            async with (
                self._transactions.transaction(DIRECT) as connection,
                self._column_store.watching(connection),
            ):
                yield connection

    async def _forget(self) -> None:
        """Takes nothing about the database for granted that was true before a failure."""
        self._partitions.forget()
        self._label_sets.forget()
        await self._transactions.renew()

    async def _copy(self, connection: Connection, columns: pa.RecordBatch) -> None:
        copying = connection.copy_to_table(
            "metrics", columns=columns.schema.names, source=stream(self._encoder, columns), format="binary"
        )
        tag = await until_lost(connection, copying)
        stored = int(tag.rpartition(" ")[2])
        if stored != columns.num_rows:
            # PostgreSQL takes a stream that ends at a row's boundary for a whole one.
            msg = f"COPY took {stored} of {columns.num_rows} rows"
            raise StorageUnavailable(msg)
