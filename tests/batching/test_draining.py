"""The end of a batch worker: what is stored in time, and what is said of the rest."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.batching import worker as worker_module
from ingestor.errors import StorageUnavailable
from ingestor.model import Ack, Delivery, MetricBatch, Outcome
from tests.batching.worker_kit import (
    ScriptedRepository,
    make,
    nothing_goes_on,
    stop,
)
from tests.journal.contract import batch, turns


async def test_an_impatient_drain_does_not_wait_for_a_database_that_fails() -> None:
    """Rows that are safe elsewhere need not wait for the end of an outage."""
    repository = ScriptedRepository(*[StorageUnavailable("gone")] * 1_000_000)
    journal, worker, _ = make(repository, size=1)
    await journal.offer(batch(), Ack.QUEUED)
    journal.close()
    assert not await asyncio.wait_for(worker.drain(1000, patient=False), 10)
    await nothing_goes_on()


async def test_an_impatient_drain_waits_for_a_database_that_works_again() -> None:
    """What failed before is no reason to leave rows behind."""
    repository = ScriptedRepository(StorageUnavailable("gone"))
    journal, worker, _ = make(repository, size=1)
    await journal.offer(batch(), Ack.COMMITTED)
    repository.gate.clear()
    await journal.offer(batch(), Ack.QUEUED)
    journal.close()
    draining = asyncio.create_task(worker.drain(1000, patient=False))
    repository.entered.clear()
    await asyncio.wait_for(repository.entered.wait(), 10)
    repository.gate.set()
    assert await asyncio.wait_for(draining, 10)


async def test_a_worker_that_has_nothing_to_do_ends_well() -> None:
    """Whether it was never started, or found nothing."""
    journal, worker, _ = make(ScriptedRepository())
    await stop(journal, worker)
    assert worker.death is None
    assert await worker.drain(10)


async def test_a_drain_ends_although_an_attempt_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled, it has a little time to end; then it is left behind."""
    monkeypatch.setattr(worker_module, "_GRACE_S", 0.01)
    over = asyncio.Event()

    class Stuck(ScriptedRepository):
        async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome:
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    continue
            return Outcome()

    journal, worker, _ = make(Stuck(), size=1)
    await journal.offer(batch(), Ack.QUEUED)
    journal.close()
    assert not await asyncio.wait_for(worker.drain(0.02), 10)
    over.set()


async def test_draining_stores_everything_without_waiting_for_the_ticker() -> None:
    """A closed queue is emptied at once, in batches that have grown while they waited, within a bound."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, size=2)
    repository.gate.clear()
    values = [float(number) for number in range(50)]
    for number in values:
        await journal.offer(batch(1, number), Ack.QUEUED)
    journal.close()
    repository.gate.set()
    assert await worker.drain(10)
    assert repository.stored == [values[:20], values[20:40], values[40:]]
    assert journal.held_rows == 0


async def test_draining_ends_in_time_and_tells_the_truth() -> None:
    """When the database takes nothing, drain gives up after its timeout and what is left can be counted."""
    repository = ScriptedRepository(*[StorageUnavailable("gone") for _ in range(100_000)])
    journal, worker, _ = make(repository, size=2)
    await journal.offer(batch(2), Ack.QUEUED)
    await journal.offer(batch(), Ack.QUEUED)
    journal.close()
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    assert not await worker.drain(0.02)
    await nothing_goes_on()
    assert (journal.held_rows, problems) == (3, [])


async def test_draining_ends_although_the_driver_swallows_the_cancellation() -> None:
    """As asyncpg may, which turns it into a time-out of its own."""

    class Swallowing(ScriptedRepository):
        async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await turns()
                raise StorageUnavailable("TimeoutError") from None
            return Outcome()

    journal, worker, _ = make(Swallowing(), size=1)
    await journal.offer(batch(), Ack.QUEUED)
    journal.close()
    assert not await asyncio.wait_for(worker.drain(0.02), 10)
    await nothing_goes_on()
    assert journal.held_rows == 1


async def test_after_a_swallowed_cancellation_no_other_batch_is_begun() -> None:
    """The next one was prepared already, and stays in the journal with the first."""

    class Swallowing(ScriptedRepository):
        arranged = begun = 0

        def arrange(self, batch: MetricBatch) -> MetricBatch:
            self.arranged += 1
            return batch

        async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome:
            self.begun += 1
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise StorageUnavailable("TimeoutError") from None
            return Outcome()

    repository = Swallowing()
    journal, worker, _ = make(repository, size=1)
    await journal.offer(batch(), Ack.QUEUED)
    await asyncio.wait_for(repository.entered.wait(), 10)
    await journal.offer(batch(), Ack.QUEUED)
    while repository.arranged < 2:
        await asyncio.sleep(0.001)
    await turns()
    assert not await asyncio.wait_for(worker.drain(0), 10)
    await nothing_goes_on()
    assert (repository.begun, journal.held_rows) == (1, 2)
