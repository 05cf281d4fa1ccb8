"""The batch worker: waits on ticker and queue, joins what waits into one batch, hands it to the repository.

It never drops a batch because the database failed, however long that lasts; it retries the same rows until
they are stored. Only rows that the database refuses as data are given up, loudly and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from loguru import logger

from ingestor.batching.policy import Backoff, FlushPolicy
from ingestor.errors import RowsRefused, StorageError
from ingestor.model import Delivery, MetricBatch, Outcome
from ingestor.model.delivery import NOTHING
from ingestor.telemetry import Telemetry

_BACKOFF = Backoff()
# An attempt that takes longer is told to whoever asks whether we are ready.
_SLOW_S = 10.0
# How long a cancelled attempt may take to end.
_GRACE_S = 5.0


class QueuedEntry(Protocol):
    """What the worker needs of an entry: its rows."""

    @property
    def batch(self) -> MetricBatch: ...


EntryT = TypeVar("EntryT", bound=QueuedEntry)


class Source(Protocol[EntryT]):
    """The queue as the worker sees it."""

    @property
    def waiting_rows(self) -> int: ...
    @property
    def pressed(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def age_s(self) -> float: ...
    async def wait(self, rows: int, timeout_s: float | None) -> None: ...
    def read(self, rows_max: int) -> list[EntryT]: ...
    def settle(self, entries: Sequence[EntryT]) -> None: ...


class Repository(Protocol):
    """Where batches go. `arrange` orders a batch's rows as suits the table, in a thread; storing raises
    StorageUnavailable (try again) or RowsRefused (never will be stored)."""

    def arrange(self, batch: MetricBatch) -> MetricBatch: ...
    async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome: ...


class BatchWorker(Generic[EntryT]):
    """Stores what the source holds, one batch at a time, oldest first."""

    def __init__(
        self,
        source: Source[EntryT],
        repository: Repository,
        policy: FlushPolicy,
        telemetry: Telemetry,
        *,
        backoff: Backoff = _BACKOFF,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._repository = repository
        self._policy = policy
        self._telemetry = telemetry
        self._backoff = backoff
        self._chance = chance
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._attempt_since_s: float | None = None
        self._ending = False
        self._position = NOTHING

    @property
    def failure(self) -> str | None:
        """Why batches are not being stored at the moment; None when they are."""
        if self._failure is not None:
            return self._failure
        if self._attempt_since_s is not None and (took_s := self._clock() - self._attempt_since_s) > _SLOW_S:
            return f"the database has been storing a batch for {took_s:.0f} s"
        return None

    def start_batch_processing(self) -> None:
        """Starts the worker on the running loop."""
        self._task = asyncio.create_task(self._run(), name="batch-worker")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = f"the batch worker died: {type(error).__name__}: {error}"
            logger.opt(exception=error).critical("the batch worker died: nothing is stored any more")

    async def drain(self, timeout_s: float) -> bool:
        """Waits until the closed source is empty, for `timeout_s` at most, and ends the worker. Says whether
        all was stored; what was not stays with the source."""
        if self._task is None:
            return True
        task, self._task = self._task, None
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            # A cancellation may come back from the driver as a failure like any other.
            self._ending = True
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE_S)
        return bool(done) and not task.cancelled() and task.exception() is None

    async def _run(self) -> None:
        """Stores one batch while the next one is prepared: the database need not wait for us, nor we for it."""
        storing: asyncio.Task[None] | None = None
        try:
            while (entries := await self._due()) is not None:
                batch = await self._prepared(entries)
                if storing is not None:
                    await storing
                if self._ending:
                    return
                storing = asyncio.create_task(self.flush_batch(entries, batch), name="flush")
            if storing is not None:
                await storing
        finally:
            if storing is not None and not storing.done():
                storing.cancel()
                await asyncio.wait({storing}, timeout=_GRACE_S)

    async def _due(self) -> Sequence[EntryT] | None:
        """Waits until a flush is due and reads what it is for; None when the source is closed and empty."""
        source, policy = self._source, self._policy
        while True:
            hurried = source.pressed or source.closed
            due_in_s = policy.due_in_s(source.waiting_rows, source.age_s(), pressed=hurried)
            if due_in_s is None and source.closed:
                return None
            if due_in_s is None:
                await source.wait(1, None)
            elif due_in_s > 0:
                await source.wait(policy.batch_size, due_in_s)
            else:
                return source.read(policy.rows_max)

    async def _prepared(self, entries: Sequence[EntryT]) -> MetricBatch:
        """The rows of these entries as one batch, ready for the table; tried again for as long as it fails."""
        failures = 0
        while True:
            try:
                return await asyncio.to_thread(self._prepare, entries)
            except Exception as error:  # noqa: BLE001 - our own mistake must not cost what was acknowledged
                self._unforeseen(error, sum(entry.batch.rows for entry in entries))
                failures += 1
                await asyncio.sleep(self._backoff.delay_s(failures, self._chance()))

    def _prepare(self, entries: Sequence[EntryT]) -> MetricBatch:
        return self._repository.arrange(MetricBatch.concat([entry.batch for entry in entries]))

    async def flush_batch(self, entries: Sequence[EntryT], batch: MetricBatch) -> None:
        """Stores the rows of these entries, joined in `batch`, in one transaction, however often it has to be
        tried, and settles them."""
        failures = 0
        while not await self._try(batch):
            if self._ending:
                return
            failures += 1
            await asyncio.sleep(self._backoff.delay_s(failures, self._chance()))
        self._source.settle(entries)

    async def _try(self, batch: MetricBatch) -> bool:
        """One attempt; False when the same rows have to be tried again."""
        self._attempt_since_s = started = self._clock()
        rows = batch.rows
        try:
            await self._repository.bulk_insert_metrics(
                Delivery(batch, batch, self._position, self._position + 1)
            )
        except RowsRefused as error:
            self._telemetry.dropped.inc(rows)
            logger.bind(rows=rows, sqlstate=error.sqlstate).error(
                "a batch was dropped, because the database refuses its data: {}", error
            )
        except StorageError as error:
            self._failed(rows, str(error), error.sqlstate)
            return False
        except Exception as error:  # noqa: BLE001 - our own mistake must not cost what was acknowledged
            self._unforeseen(error, rows)
            return False
        else:
            self._telemetry.committed.inc(rows)
            self._telemetry.flush_rows.observe(rows)
            self._telemetry.flush_seconds.observe(self._clock() - started)
            if self._failure is not None:
                logger.bind(rows=rows).info("the database stores batches again")
        finally:
            self._attempt_since_s = None
        self._failure = None
        self._position += 1
        return True

    def _unforeseen(self, error: Exception, rows: int) -> None:
        logger.opt(exception=error).error("storing a batch failed in a way that was not foreseen")
        self._failed(rows, f"{type(error).__name__}: {error}", None)

    def _failed(self, rows: int, reason: str, sqlstate: str | None) -> None:
        self._telemetry.flush_failures.inc()
        self._failure = reason
        logger.bind(rows=rows, sqlstate=sqlstate).warning(
            "a batch could not be stored, is kept and will be tried again: {}", reason
        )
