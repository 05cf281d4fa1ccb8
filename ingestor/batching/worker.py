"""The batch worker: waits on ticker and queue, joins what waits into one batch, hands it to the repository.

It never drops a batch because the database failed, however long that lasts; it retries the same rows until they are
stored, or until the database says that it has them. What it lets go of is what the database says is stored. It asks
a journal again that can't be read at the moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Protocol

from loguru import logger

from ingestor.batching.duty import Duty
from ingestor.batching.policy import Backoff, FlushPolicy
from ingestor.batching.shares import by_service
from ingestor.errors import CursorElsewhere, JournalProblem, SchemaProblem, StorageUnavailable, without_values
from ingestor.model import Delivery, Entry, MetricBatch, Outcome, Placed, Taken
from ingestor.telemetry import Telemetry

_BACKOFF = Backoff()
# An attempt that takes longer is told to whoever asks whether we are ready.
_SLOW_S = 10.0
# Of the time. With as much load as two cores take, database and clients included, it is 0.7 and more.
_BUSY = 0.5
# Smaller batches are as long on their way where the database is far, and cost it little. A larger BATCH_SIZE is no
# bound for that: the journal on disk reads 8 MiB at once, and who waits for commits has little in flight. Nor is a
# small one, which a trickle fills; but where none becomes so large, one that has grown as far as it may was held up
# by storing.
_MUCH_ROWS = 2_500
# How long a cancelled attempt may take to end.
_GRACE_S = 5.0


class Source(Protocol):
    """The journal as the worker sees it. Entries are settled in the groups in which they were read. `read` and
    `rewind` raise JournalProblem when its disk fails; then they may be called again."""

    @property
    def waiting_rows(self) -> int: ...
    @property
    def pressed(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def age_s(self) -> float: ...
    async def wait(self, rows: int, timeout_s: float | None) -> None: ...
    async def read(self, rows_max: int) -> list[Entry]: ...
    async def settle(self, entries: Sequence[Taken], outcome: Outcome) -> None: ...
    async def rewind(self, position: int) -> int: ...


class Repository(Protocol):
    """Where batches go. `arrange` orders a batch's rows as suits the table, in a thread; storing raises
    StorageUnavailable or SchemaProblem (try again), or CursorElsewhere (something else is due)."""

    def arrange(self, batch: MetricBatch) -> MetricBatch: ...
    async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome: ...


class Watcher(Protocol):
    """Who is told of rows once they are committed. It never waits: what it has no room for, it leaves out."""

    def committed(self, delivery: Delivery, outcome: Outcome) -> None: ...


class NoWatcher:
    """Nobody."""

    def committed(self, delivery: Delivery, outcome: Outcome) -> None:
        """Nothing."""


class BatchWorker:
    """Stores what the source holds, one batch at a time, oldest first. `after` is where the database's cursor
    for it stands."""

    def __init__(
        self,
        source: Source,
        repository: Repository,
        policy: FlushPolicy,
        telemetry: Telemetry,
        *,
        after: int = 0,
        watcher: Watcher = NoWatcher(),  # noqa: B008 - it has no state
        backoff: Backoff = _BACKOFF,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._repository = repository
        self._policy = policy
        self._telemetry = telemetry
        self._after = after
        self._watcher = watcher
        self._backoff = backoff
        self._chance = chance
        self._clock = clock
        self._duty = Duty(clock)
        self._much_rows = min(_MUCH_ROWS, policy.rows_max)
        self._task: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._death: str | None = None
        self._failing = asyncio.Event()
        self._attempt_since_s: float | None = None
        self._ending = False
        self._reading = asyncio.Lock()
        self._rewinds = 0

    @property
    def stored_to(self) -> int:
        """The position up to which the database has all."""
        return self._after

    @property
    def failure(self) -> str | None:
        """Why batches are not being stored at the moment; None when they are."""
        if self._failure is not None:
            return self._failure
        if (took_s := self._storing_s) > _SLOW_S:
            return f"the database has been storing a batch for {took_s:.0f} s"
        return None

    @property
    def _storing_s(self) -> float:
        """For how long the batch that is being stored has been."""
        return 0.0 if self._attempt_since_s is None else self._clock() - self._attempt_since_s

    @property
    def death(self) -> str | None:
        """Why nothing will be stored any more, whatever the database does; None as long as all is well."""
        return self._death

    @property
    def busy(self) -> bool:
        """Whether large batches are being stored for most of the time, so that there is little left for others. One
        that takes very long is held up by something else."""
        return self._duty.share > _BUSY and self._storing_s <= _SLOW_S

    def start_batch_processing(self) -> None:
        """Starts the worker on the running loop."""
        self._task = asyncio.create_task(self._run(), name="batch-worker")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and self._death is None:
            self._death = f"the batch worker died ({error!r}): restart the server"
            self._fails(self._death)
            logger.opt(exception=error).critical("the batch worker died: nothing is stored any more")

    async def drain(self, timeout_s: float, *, patient: bool = True) -> bool:
        """Waits until the closed source is empty, for `timeout_s` at most, and ends the worker; without
        patience not for a database that fails. Says whether all was stored; what was not stays with the source."""
        if self._task is None:
            return True
        task, self._task = self._task, None
        failing = asyncio.create_task(self._failing.wait())
        until: set[asyncio.Future[object]] = {task} if patient else {task, failing}  # type: ignore[arg-type]
        await asyncio.wait(until, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        done = task.done()
        if not done:
            # A cancellation may come back from the driver as a failure like any other.
            self._ending = True
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE_S)
        return done and not task.cancelled() and task.exception() is None

    async def _run(self) -> None:
        """Stores one batch while the next one is prepared: the database need not wait for us, nor we for it."""
        storing: asyncio.Task[None] | None = None
        try:
            while (entries := await self._due(storing)) is not None:
                rewinds = self._rewinds
                taken = [entry.taken for entry in entries]
                batch, arranged = await self._prepared(entries)
                del entries  # the rows are in the batch now, and it may be long until they are stored
                if storing is not None:
                    await storing
                if self._ending:
                    return
                if rewinds == self._rewinds:  # else they are unread again, since something else is due
                    storing = asyncio.create_task(self.flush_batch(taken, batch, arranged), name="flush")
                    storing.add_done_callback(self._ended)
                del batch, arranged
            if storing is not None:
                await storing  # whatever it died of, nothing was settled
        finally:
            if storing is not None and not storing.done():
                storing.cancel()
                await asyncio.wait({storing}, timeout=_GRACE_S)

    async def _due(self, storing: asyncio.Task[None] | None) -> Sequence[Entry] | None:
        """Waits until a flush is due and reads what it is for; None when the source is closed and empty."""
        source, policy = self._source, self._policy
        failures = 0
        while True:
            hurried = source.pressed or source.closed
            due_in_s = policy.due_in_s(source.waiting_rows, source.age_s(), pressed=hurried)
            if due_in_s is None and source.closed:
                if storing is None or storing.done():
                    return None
                await asyncio.wait({storing})  # it may be told that something else is due
            elif due_in_s is None:
                await source.wait(1, None)
            elif due_in_s > 0:
                await source.wait(policy.batch_size, due_in_s)
            else:
                try:
                    async with self._reading:
                        entries = await source.read(policy.rows_max)
                except JournalProblem as problem:
                    failures += 1
                    await self._wait_for_journal(problem, failures)
                    continue
                if failures:
                    failures = 0
                    self._works()
                if entries:
                    return entries

    async def _prepared(self, entries: Sequence[Entry]) -> tuple[MetricBatch, MetricBatch]:
        """The rows of these entries as one batch, in their order and in the table's; tried again for as long as it
        fails."""
        failures = 0
        while True:
            try:
                return await asyncio.to_thread(self._prepare, entries)
            except Exception as error:  # noqa: BLE001 - our own mistake must not cost what was acknowledged
                self._unforeseen(error, sum(entry.batch.rows for entry in entries))
                failures += 1
                await asyncio.sleep(self._backoff.delay_s(failures, self._chance()))

    def _prepare(self, entries: Sequence[Entry]) -> tuple[MetricBatch, MetricBatch]:
        batch = MetricBatch.concat([entry.batch for entry in entries])
        return batch, self._repository.arrange(batch)

    async def flush_batch(self, entries: Sequence[Taken], batch: MetricBatch, arranged: MetricBatch) -> None:
        """Stores the rows of these entries, joined in `batch`, in one transaction, however often it has to be
        tried, and settles them, unless the database says that something else is due; then they are unread again."""
        failures = 0
        requests = _placed(entries)
        while True:
            delivery = Delivery(batch, arranged, self._after, entries[-1].position, requests)
            try:
                outcome = await self._try(delivery)
            except CursorElsewhere as error:
                await self._rewind(error.position)
                return
            if outcome is not None:
                self._after = delivery.position
                await self._source.settle(entries, outcome)
                self._tell(delivery, outcome)
                return
            if self._ending:
                return
            failures += 1
            await asyncio.sleep(self._backoff.delay_s(failures, self._chance()))

    def _tell(self, delivery: Delivery, outcome: Outcome) -> None:
        try:
            self._telemetry.services.add(by_service(delivery, outcome))
            self._watcher.committed(delivery, outcome)
        except Exception as error:  # noqa: BLE001 - who watches must not end what is watched
            logger.opt(exception=error).error("rows could not be shown to those who watch them")

    async def _rewind(self, position: int) -> None:
        async with self._reading:  # what is read from here on is what is due
            failures = 0
            while True:
                try:
                    more = await self._source.rewind(position)
                except JournalProblem as problem:
                    failures += 1
                    await self._wait_for_journal(problem, failures)
                else:
                    break
            if failures:
                self._works()
            self._rewinds += 1
        logger.bind(expected=self._after, found=position, metrics=more).warning(
            "the database's cursor is not where it was left: storing goes on from there"
        )
        self._telemetry.rewinds.inc()
        self._telemetry.received.inc(max(more, 0))
        self._telemetry.committed.inc(max(-more, 0))
        self._after = position

    async def _wait_for_journal(self, problem: JournalProblem, failures: int) -> None:
        self._fails(str(problem))
        logger.error("nothing can be stored until the journal can be read: {}", problem)
        await asyncio.sleep(self._backoff.delay_s(failures, self._chance()))

    async def _try(self, delivery: Delivery) -> Outcome | None:
        """One attempt; None when the same rows have to be tried again. Raises CursorElsewhere."""
        self._attempt_since_s = started = self._clock()
        rows = delivery.batch.rows
        try:
            with self._duty.done() if rows >= self._much_rows else nullcontext():
                outcome = await self._repository.bulk_insert_metrics(delivery)
        except SchemaProblem as error:
            self._fails(str(error))
            logger.bind(rows=rows, sqlstate=error.sqlstate).error(
                "nothing can be stored until the schema is mended; metrics are kept: {}", error
            )
            return None
        except StorageUnavailable as error:
            self._failed(rows, str(error), error.sqlstate)
            return None
        except CursorElsewhere:
            raise
        except Exception as error:  # noqa: BLE001 - our own mistake must not cost what was acknowledged
            self._unforeseen(error, rows)
            return None
        finally:
            self._attempt_since_s = None
        self._count(delivery, outcome, self._clock() - started)
        return outcome

    def _count(self, delivery: Delivery, outcome: Outcome, took_s: float) -> None:
        telemetry, rows, dead = self._telemetry, delivery.batch.rows, len(outcome.dead)
        repeated = sum(delivery.requests[number].rows for number in outcome.duplicates)
        telemetry.committed.inc(rows - dead - repeated)
        telemetry.duplicates.inc(repeated)
        telemetry.flush_rows.observe(rows)
        telemetry.flush_seconds.observe(took_s)
        if dead:
            telemetry.dead_lettered.inc(dead)
            first = outcome.dead[0]
            logger.bind(rows=dead, sqlstate=first.sqlstate).error(
                "the database refuses metrics, which are in its table dead_letters now: {}",
                without_values(first.reason, first.sqlstate),
            )
        if self._failure is not None:
            logger.bind(rows=rows).info("the database stores batches again")
        self._works()

    def _works(self) -> None:
        self._failure = None
        self._failing.clear()

    def _unforeseen(self, error: Exception, rows: int) -> None:
        logger.opt(exception=error).error("storing a batch failed in a way that was not foreseen")
        self._failed(rows, type(error).__name__, None)  # its text may quote a row

    def _failed(self, rows: int, reason: str, sqlstate: str | None) -> None:
        self._fails(reason)
        logger.bind(rows=rows, sqlstate=sqlstate).warning(
            "a batch could not be stored, is kept and will be tried again: {}", reason
        )

    def _fails(self, reason: str) -> None:
        self._telemetry.flush_failures.inc()
        self._failure = reason
        self._failing.set()


def _placed(entries: Sequence[Taken]) -> list[Placed]:
    """The entries' requests, with their places among all rows."""
    placed: list[Placed] = []
    row = 0
    for entry in entries:
        placed.extend(Placed(row + each.first, each.rows, each.request) for each in entry.requests)
        row += entry.rows
    return placed
