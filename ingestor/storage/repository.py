"""MetricRepository: stores a delivery by binary COPY in one transaction, which also moves the journal's cursor: all
of it once, or nothing.

It neither retries nor drops. What a row's fault keeps out goes into dead_letters; whose fault any other failure is
it says, and leaves to its caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol
from uuid import UUID

import numpy as np
import pyarrow as pa
from loguru import logger

from ingestor.errors import CursorElsewhere, RowsRefused, SchemaProblem, StorageError, without_values
from ingestor.model import DeadRow, Delivery, MetricBatch, Outcome
from ingestor.model.batch import SCHEMA
from ingestor.model.spans import Spans, spans_of
from ingestor.storage import dead_letters
from ingestor.storage.bisection import Bisection
from ingestor.storage.catalogue import WRITTEN_MAX, Catalogue, Due
from ingestor.storage.column_store import DIRECT, INDIRECT, ColumnStore
from ingestor.storage.copy import Encoder, stream
from ingestor.storage.cursors import Cursors, moving
from ingestor.storage.faults import CURSOR_MOVED, FAILURES, HELD_UP, LACKS_RIGHT, classify, storage_errors
from ingestor.storage.label_sets import LabelSets
from ingestor.storage.remainder import Rest, dead_of_requests, leave_out
from ingestor.storage.request_ids import RequestIds, Verdicts
from ingestor.storage.rights import missing_now
from ingestor.storage.series import arranged
from ingestor.storage.transactions import Connection, TransactionManager, until_lost, within

# A server that has not stored a batch by then is asked again on a new connection: a network that swallows packets
# is otherwise noticed by nobody. Waiting for a lock may take longer and is then begun anew. While rows are being
# separated it is the time from one step to the next.
_STORE_S_MAX = 60.0
# What was put off until COMMIT would be refused there, where no row can be told from another.
_AT_ONCE = "SET CONSTRAINTS ALL IMMEDIATE;"
# Of the few seconds that catching up has: a row that somebody holds locked must not hold up all behind it. Other
# gateways hold theirs for milliseconds.
_BRIEFLY = "SET LOCAL lock_timeout = '200ms';"
# Who holds rows in so many places holds all of them.
_HELD_UP_MAX = 5

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
    """The table `metrics`, with its label sets, for the deliveries of one journal, one at a time. `by_series`: the
    rows of a series are stored together, where a batch has many of it."""

    def __init__(
        self,
        transactions: TransactionManager,
        partitions: Partitions,
        encoder: Encoder,
        journal: UUID,
        cursors: Cursors,
        *,
        request_id_window_s: float,
        column_store: ColumnStore | None = None,
        by_series: bool = False,
    ) -> None:
        self._transactions = transactions
        self._partitions = partitions
        self._encoder = encoder
        self._journal = journal
        self._cursors = cursors
        self._request_ids = RequestIds(journal, request_id_window_s)
        self._column_store = column_store
        self._by_series = by_series
        self._label_sets = LabelSets()
        self._catalogue = Catalogue()
        # Only after a success is it sure where the database's cursor stands.
        self._cursor_is_sure = False

    def arrange(self, batch: MetricBatch) -> MetricBatch:
        """The same rows in the order that suits the table, with their series' spans. May take milliseconds: call it
        in a thread."""
        by_series = arranged(batch) if self._by_series else batch
        by_series.spans = spans_of(by_series.columns)
        return by_series

    async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome:
        """BEGIN, insert all, move the cursor, COMMIT. On failure everything is rolled back, and it raises
        StorageUnavailable or SchemaProblem (the same delivery may be stored later) or CursorElsewhere (it is not
        what comes next). A delivery that was stored before, without us hearing of it, is not stored again."""
        try:
            return await self._store(delivery)
        except CursorElsewhere:
            self._forget()
            raise
        except StorageError as error:
            self._forget()
            await self._transactions.renew()
            if error.sqlstate == LACKS_RIGHT and (grants := await missing_now(self._transactions)):
                msg = f"the role lacks rights to store: {grants}"
                raise SchemaProblem(msg, error.sqlstate) from error
            raise

    async def catch_up(self, *, all_: bool = False) -> None:
        """Writes what the catalogue of series has been behind with for long, or all of it but what others hold
        locked. Call it now and then, also while a delivery is stored. Raises StorageError."""
        overdue = self._catalogue.overdue(all_=all_).written
        held_up: list[StorageError] = []
        # Few in a transaction: who gives this up in the middle does not begin again with the first.
        for start in range(0, len(overdue), WRITTEN_MAX):
            some = overdue.at(np.arange(start, min(start + WRITTEN_MAX, len(overdue))))
            try:
                await self._write_late(some)
            except StorageError as error:
                if error.sqlstate not in HELD_UP:
                    raise
                held_up.append(error)
                if len(held_up) == _HELD_UP_MAX:
                    break
        if held_up:
            raise held_up[0]

    async def _write_late(self, some: Spans) -> None:
        """In a transaction of their own. Raises StorageError."""
        with storage_errors():
            async with self._transactions.transaction(_BRIEFLY) as connection:
                await self._catalogue.write(connection, some)
        self._catalogue.committed(Due(some, Spans.of({})))

    async def _store(self, delivery: Delivery) -> Outcome:
        try:
            return await self._attempt(delivery, separate=False)
        except RowsRefused as refusal:
            logger.bind(rows=delivery.batch.rows, sqlstate=refusal.sqlstate).info(
                "the database refuses rows of a batch, which are looked for: {}",
                without_values(str(refusal), refusal.sqlstate),
            )
        try:
            return await self._attempt(delivery, separate=True)
        except RowsRefused as refusal:
            msg = f"what is stored beside the rows of a batch is refused: {refusal}"
            raise SchemaProblem(msg, refusal.sqlstate) from refusal

    async def _attempt(self, delivery: Delivery, *, separate: bool) -> Outcome:
        """Stores the delivery, if the cursor stands before it; `separate` its good rows from the others. Raises
        StorageError."""
        for again in (True, False):
            try:
                return await self._in_time(delivery, separate=separate)
            except FAILURES as error:
                if not again or getattr(error, "sqlstate", None) != CURSOR_MOVED:
                    raise classify(error) from error
                # Once more, which begins by looking at the cursor.
        raise AssertionError

    async def _in_time(self, delivery: Delivery, *, separate: bool) -> Outcome:
        sure, self._cursor_is_sure = self._cursor_is_sure, False
        async with asyncio.timeout(_STORE_S_MAX) as patience:
            await self._partitions.ensure(delivery.batch.columns.column("time"))
            async with self._transactions.connection() as connection:
                outcome = None if sure else await self._stored_before(connection, delivery)
                if outcome is None:
                    outcome = await self._transact(connection, delivery, patience if separate else None)
        self._cursor_is_sure = True
        return outcome

    async def _stored_before(self, connection: Connection, delivery: Delivery) -> Outcome | None:
        """What became of the delivery when it was stored and the answer was lost; None when it was not. Raises
        CursorElsewhere when it is not what comes next."""
        position = await self._cursors.read(connection, self._journal)
        if position < delivery.position:
            if position != delivery.after:
                raise CursorElsewhere(position)
            return None
        verdicts = await self._request_ids.judge_stored(connection, delivery.requests, delivery.position)
        dead = await dead_letters.of_position(connection, self._journal, delivery.position)
        return Outcome(dead, verdicts.duplicates, verdicts.conflicts)

    async def _transact(
        self, connection: Connection, delivery: Delivery, separating: asyncio.Timeout | None
    ) -> Outcome:
        """BEGIN to COMMIT."""
        direct = separating is None and delivery.arranged.by_series and self._column_store is not None
        opening = DIRECT if direct else "" if separating is None else _AT_ONCE
        closing = moving(self._journal, delivery.after, delivery.position)
        async with within(connection, opening, closing), self._watching(connection, direct=direct):
            verdicts = await self._request_ids.record(connection, delivery.requests, delivery.position)
            rest = await self._rest(connection, delivery, verdicts, direct=direct)
            if separating is None:
                await self._insert(connection, rest.arranged)
                dead, stored = rest.dead, rest.arranged
            else:
                refused = await self._separate(connection, rest.batch, separating)
                stored = rest.batch.without([each.row for each in refused])
                dead = sorted([*rest.dead, *rest.renumbered(refused)])
                await self._request_ids.note_dead(connection, dead_of_requests(delivery, dead, verdicts))
            await dead_letters.write(connection, self._journal, delivery, dead)
            due = self._catalogue.due(await _spans(stored))
            await self._catalogue.write(connection, due.written)
        self._catalogue.committed(due)
        if separating is None:
            self._label_sets.remember(rest.arranged.label_sets)
        return Outcome(dead, verdicts.duplicates, verdicts.conflicts)

    @asynccontextmanager
    async def _watching(self, connection: Connection, *, direct: bool) -> AsyncIterator[None]:
        if direct and self._column_store is not None:
            async with self._column_store.watching(connection):
                yield
        else:
            yield

    async def _rest(
        self, connection: Connection, delivery: Delivery, verdicts: Verdicts, *, direct: bool
    ) -> Rest:
        """The delivery without the rows of known requests."""
        if not verdicts.duplicates and not verdicts.conflicts:
            return Rest(delivery.batch, delivery.arranged)
        rest = await asyncio.to_thread(leave_out, delivery, verdicts, self.arrange)
        if direct and not rest.arranged.by_series:
            await connection.execute(INDIRECT)
        return rest

    async def _insert(self, connection: Connection, batch: MetricBatch) -> None:
        """All rows, with the label sets that are not known to be there."""
        if batch.rows:
            await self._label_sets.insert(connection, self._label_sets.unknown(batch.label_sets))
            # Without labels the table's own default says so, in a fifth fewer bytes.
            await self._copy(
                connection, batch.columns if batch.label_sets else batch.columns.select(_UNLABELED)
            )

    async def _separate(
        self, connection: Connection, batch: MetricBatch, patience: asyncio.Timeout
    ) -> list[DeadRow]:
        """All rows that the database takes; returns the others."""
        loop = asyncio.get_running_loop()

        def progress() -> None:
            patience.reschedule(loop.time() + _STORE_S_MAX)

        return await Bisection(connection, self._copy, self._label_sets, progress).store(batch)

    def _forget(self) -> None:
        """Takes nothing about the database for granted that was true before a failure."""
        self._partitions.forget()
        self._label_sets.forget()
        self._catalogue.forget()

    async def _copy(self, connection: Connection, columns: pa.RecordBatch) -> None:
        copying = connection.copy_to_table(
            "metrics", columns=columns.schema.names, source=stream(self._encoder, columns), format="binary"
        )
        tag = await until_lost(connection, copying)
        stored = int(tag.rpartition(" ")[2])
        if stored != columns.num_rows:
            # PostgreSQL takes a stream that ends at a row's boundary for a whole one.
            msg = f"COPY took {stored} of {columns.num_rows} rows: does a trigger of metrics leave some out?"
            raise SchemaProblem(msg)


async def _spans(batch: MetricBatch) -> Spans:
    if not batch.rows:
        return Spans.of({})
    return batch.spans if batch.spans is not None else await asyncio.to_thread(spans_of, batch.columns)
