"""The batch worker between a real queue and a repository: what is stored when, in which order, and who is told."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.batching import BatchWorker, FlushPolicy
from ingestor.batching import worker as worker_module
from ingestor.journal import MemoryJournal
from ingestor.model import Ack, DeadRow, Delivery, Entry, MetricBatch, Outcome, Placed, Request
from ingestor.telemetry import Telemetry
from tests.batching.worker_kit import (
    ScriptedRepository,
    SickJournal,
    make,
    stop,
    value,
)
from tests.journal.contract import batch, limits, turns


async def test_a_full_batch_does_not_wait_for_the_ticker() -> None:
    """BATCH_SIZE rows are stored as soon as they wait, in the order in which they came."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, size=3)
    for number in range(3):
        await journal.offer(batch(1, float(number)), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[0.0, 1.0, 2.0]])
    await stop(journal, worker)


async def test_the_ticker_stores_what_there_is() -> None:
    """An incomplete batch is stored when its oldest row is as old as FLUSH_INTERVAL."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, interval_s=0.01)
    await journal.offer(batch(1, 7.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[7.0]])
    await stop(journal, worker)


@pytest.mark.parametrize("interval_s", [0.9, 1000.0])
async def test_nothing_is_stored_before_its_time(interval_s: float) -> None:
    """An incomplete batch waits for the ticker."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, interval_s=interval_s)
    await journal.offer(batch(), Ack.QUEUED)
    await turns(20)
    assert (repository.entered.is_set(), journal.waiting_rows) == (False, 1)
    await stop(journal, worker)


async def test_a_read_that_gives_nothing_is_no_batch() -> None:
    """The disk may have lost what waited."""
    journal, repository, telemetry = SickJournal(limits()), ScriptedRepository(), Telemetry()
    journal.nothings = 1
    worker = BatchWorker(journal, repository, FlushPolicy(1, 1000), telemetry)
    worker.start_batch_processing()
    await journal.offer(batch(1, 3.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[3.0]])
    await stop(journal, worker)
    assert value(telemetry, "ingestor_flush_failures_total") == 0


def test_a_request_stands_where_its_entry_and_its_place_in_that_say() -> None:
    """Entries that were joined have requests behind their first row."""
    request = Request("", "r", b"", 1)
    entries = [Entry(1, batch(2), 0.0), Entry(2, batch(3), 0.0, (Placed(1, 2, request),))]
    assert worker_module._placed([each.taken for each in entries]) == [Placed(3, 2, request)]


async def test_pressure_stores_at_once() -> None:
    """A queue smaller than a batch would never fill one: who waits for room sets off a flush."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, rows=2)
    for number in range(4):
        await asyncio.wait_for(journal.offer(batch(1, float(number)), Ack.QUEUED), 10)
    await stop(journal, worker)
    assert sum(repository.stored, []) == [0.0, 1.0, 2.0, 3.0]  # noqa: RUF017 - two short lists


async def test_requests_keep_their_rows_in_a_delivery() -> None:
    """A request's place counts all rows before it, and repeated requests are counted apart."""
    first, second = (Request("", name, b"", 2) for name in ("a", "b"))
    repository = ScriptedRepository(Outcome(duplicates=[1]))
    journal, worker, telemetry = make(repository, size=6)
    await journal.offer(batch(1), Ack.QUEUED)
    await journal.offer(batch(2), Ack.QUEUED, first)
    await journal.offer(batch(3), Ack.QUEUED, second)
    await stop(journal, worker)
    assert repository.deliveries[0].requests == [Placed(1, 2, first), Placed(3, 3, second)]
    assert value(telemetry, "ingestor_metrics_duplicates_total") == 3
    assert value(telemetry, "ingestor_metrics_committed_total") == 3


async def test_who_watches_is_shown_what_was_committed(told: list[tuple[str, str]]) -> None:
    """And counts of services and batches; when a watcher breaks, storing goes on."""

    class Watching:
        def __init__(self) -> None:
            self.shown: list[tuple[Delivery, Outcome]] = []

        def committed(self, delivery: Delivery, outcome: Outcome) -> None:
            self.shown.append((delivery, outcome))
            if len(self.shown) == 1:
                raise ZeroDivisionError

    outcome = Outcome(dead=[DeadRow(1, "23514", "bad")])
    repository, journal, telemetry, watching = (
        ScriptedRepository(Outcome(), outcome),
        MemoryJournal(limits()),
        Telemetry(),
        Watching(),
    )
    worker = BatchWorker(journal, repository, FlushPolicy(1, 1000), telemetry, watcher=watching)
    worker.start_batch_processing()
    for rows in (1, 2):
        await journal.offer(batch(rows), Ack.COMMITTED)
    await stop(journal, worker)
    assert [each for each, _ in watching.shown] == repository.deliveries
    assert watching.shown[1][1] is outcome
    assert told[0] == ("ERROR", "rows could not be shown to those who watch them")
    [samples] = [each.samples for each in telemetry.services.collect()]
    assert sum(sample.value for sample in samples) == 2
    assert value(telemetry, "ingestor_flush_rows_count") == 2
    assert value(telemetry, "ingestor_flush_rows_sum") == 3
    assert value(telemetry, "ingestor_flush_seconds_count") == 2


async def test_an_entry_is_never_split() -> None:
    """A request larger than BATCH_SIZE is one transaction all the same."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, size=2)
    await journal.offer(batch(5), Ack.QUEUED)
    await repository.until(lambda: [len(values) for values in repository.stored] == [5])
    await stop(journal, worker)


async def test_the_next_batch_is_prepared_while_one_is_stored() -> None:
    """It is read and joined while the database is busy, and stored after it, never before."""

    class Arranging(ScriptedRepository):
        def __init__(self) -> None:
            super().__init__()
            self.arranged: list[list[float]] = []

        def arrange(self, batch: MetricBatch) -> MetricBatch:
            self.arranged.append(batch.columns.column("value").to_pylist())
            return batch

    repository = Arranging()
    repository.gate.clear()
    journal, worker, _ = make(repository, size=2)
    values = [float(number) for number in range(50)]
    for value_ in values:
        await journal.offer(batch(1, value_), Ack.QUEUED)
    while len(repository.arranged) < 2:
        await asyncio.sleep(0.001)
    assert repository.stored == []
    assert journal.held_rows == 50
    repository.gate.set()
    await stop(journal, worker)
    assert repository.stored == [values[:20], values[20:40], values[40:]]
