"""A batch worker whose database fails, or which fails itself: nothing is lost, and it is told."""

from __future__ import annotations

import asyncio

import pytest
from loguru import logger

from ingestor.batching import Backoff, BatchWorker, FlushPolicy
from ingestor.errors import CursorElsewhere, SchemaProblem, StorageUnavailable
from ingestor.journal import MemoryJournal
from ingestor.model import Ack, DeadRow, Entry, MetricBatch, Outcome
from ingestor.telemetry import Telemetry
from tests.batching.worker_kit import (
    AGAIN,
    ELSEWHERE,
    UNFORESEEN,
    UNREADABLE,
    ScriptedRepository,
    SickJournal,
    kept,
    make,
    stop,
    value,
)
from tests.journal.contract import batch, limits


async def test_an_outage_is_not_over_because_the_next_batch_is_read() -> None:
    """Readiness says why until something is stored."""
    repository = ScriptedRepository(StorageUnavailable("gone"))
    journal, worker, _ = make(repository, size=1)
    await journal.offer(batch(), Ack.QUEUED)
    await repository.until(lambda: len(repository.attempts) == 1)
    repository.gate.clear()
    await journal.offer(batch(), Ack.QUEUED)
    while journal.waiting_rows:
        await asyncio.sleep(0.001)
    assert worker.failure == "gone"
    repository.gate.set()
    await stop(journal, worker)


async def test_a_failed_batch_is_kept_and_tried_again() -> None:
    """The same rows, until they are stored; what comes meanwhile waits behind them."""
    outage = [StorageUnavailable("gone", "08006") for _ in range(3)]
    repository = ScriptedRepository(*outage)
    journal, worker, telemetry = make(repository, size=1)
    await journal.offer(batch(1, 1.0), Ack.QUEUED)
    await repository.until(lambda: len(repository.attempts) >= 1)
    await journal.offer(batch(1, 2.0), Ack.QUEUED)
    await repository.until(lambda: len(repository.stored) == 2)
    assert repository.attempts == [[1.0]] * 4 + [[2.0]]
    await stop(journal, worker)
    assert value(telemetry, "ingestor_flush_failures_total") == 3
    assert value(telemetry, "ingestor_metrics_committed_total") == 2


async def test_readiness_learns_of_an_outage_and_of_its_end() -> None:
    """`failure` says why while a batch can't be stored, and nothing afterwards."""
    repository = ScriptedRepository(*[StorageUnavailable("gone") for _ in range(5)])
    journal, worker, _ = make(repository, size=1)
    await journal.offer(batch(), Ack.QUEUED)
    await repository.until(lambda: len(repository.attempts) >= 2)
    assert worker.failure == "gone"
    await repository.until(lambda: bool(repository.stored))
    await stop(journal, worker)
    assert worker.failure is None


async def test_rows_that_the_database_refuses_are_told_loudly() -> None:
    """An ERROR in the log and a counter; their caller hears of them, and later rows go on."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["level"].name), level="ERROR")
    repository = ScriptedRepository(Outcome(dead=[DeadRow(1, "22021", "bad byte")]))
    journal, worker, telemetry = make(repository, size=2)
    assert await journal.offer(batch(2), Ack.COMMITTED) == (DeadRow(1, "22021", "bad byte"),)
    await journal.offer(batch(2, 5.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[5.0, 5.0]])
    await stop(journal, worker)
    logger.remove(sink)
    assert messages == ["ERROR"]
    assert value(telemetry, "ingestor_metrics_dead_lettered_total") == 1
    assert value(telemetry, "ingestor_metrics_committed_total") == 3
    assert value(telemetry, "ingestor_metrics_received_total") == 4


async def test_a_schema_that_has_to_be_mended_is_waited_for() -> None:
    """Nothing is given up; readiness and an ERROR in the log say what to do, until it is done."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="ERROR")
    repository = ScriptedRepository(SchemaProblem("no such table", "42P01"))
    journal, worker, telemetry = make(repository, size=1)
    await journal.offer(batch(1, 3.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[3.0]])
    await stop(journal, worker)
    logger.remove(sink)
    assert len(messages) == 1
    assert "no such table" in messages[0]
    assert value(telemetry, "ingestor_flush_failures_total") == 1


@pytest.mark.parametrize(
    ("where", "failure", "lines"),
    [
        ("storing", "gone", [kept("gone"), kept("gone"), AGAIN]),
        ("preparing", "ValueError", [UNFORESEEN, kept("ValueError")] * 2 + [AGAIN]),
        ("reading", "no file descriptors", [UNREADABLE, UNREADABLE]),
        ("rewinding", "no file descriptors", [UNREADABLE, UNREADABLE, ELSEWHERE]),
    ],
)
async def test_failures_in_a_row_are_waited_out_and_told(
    where: str, failure: str, lines: list[tuple[str, str]], told: list[tuple[str, str]]
) -> None:
    """The first is waited out least, whatever it is that fails. Readiness knows while it does, the log when it
    began and ended."""

    class Failing(ScriptedRepository):
        failures = 2 if where == "preparing" else 0

        def arrange(self, batch: MetricBatch) -> MetricBatch:
            if self.failures:
                self.failures -= 1
                raise ValueError
            return batch

    class Noted(Backoff):
        def delay_s(self, failures: int, chance: float) -> float:
            waits.append((failures, worker.failure))
            return 0.0

    waits: list[tuple[int, str | None]] = []
    repository, journal, telemetry = Failing(), SickJournal(limits()), Telemetry()
    if where == "storing":
        repository.script = [StorageUnavailable("gone", "08006") for _ in range(2)]
    elif where == "reading":
        journal.reads = 2
    elif where == "rewinding":
        journal.rewinds, repository.script = 2, [CursorElsewhere(0)]
    worker = BatchWorker(journal, repository, FlushPolicy(1, 1000), telemetry, backoff=Noted())
    worker.start_batch_processing()
    await journal.offer(batch(1, 3.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[3.0]])
    await stop(journal, worker)
    assert waits == [(1, failure), (2, failure)]
    assert told == lines
    assert worker.failure is None
    assert value(telemetry, "ingestor_flush_failures_total") == 2


async def test_our_own_mistakes_cost_no_rows() -> None:
    """An exception that nobody foresaw is retried like an outage."""
    repository = ScriptedRepository(ZeroDivisionError("oops"))
    journal, worker, telemetry = make(repository, size=1)
    await journal.offer(batch(1, 3.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[3.0]])
    await stop(journal, worker)
    assert value(telemetry, "ingestor_flush_failures_total") == 1


@pytest.mark.parametrize("failures", [0, 2])
async def test_the_books_balance(failures: int) -> None:
    """received = committed + rejected + dead-lettered + duplicates + pending, whatever happened."""
    dead = [DeadRow(row, "23514", "bad") for row in range(30)]
    repository = ScriptedRepository(*[StorageUnavailable("gone")] * failures, Outcome(dead=dead))
    journal, worker, telemetry = make(repository, size=3)
    for _ in range(40):
        await journal.offer(batch(), Ack.QUEUED)
    await stop(journal, worker)
    received, committed, refused = (
        value(telemetry, f"ingestor_metrics_{name}_total")
        for name in ("received", "committed", "dead_lettered")
    )
    assert (received, committed, refused, journal.held_rows) == (40, 10, 30, 0)


async def test_failing_to_prepare_a_batch_costs_no_rows() -> None:
    """Whatever goes wrong before the database is asked is tried again like an outage."""

    class Failing(ScriptedRepository):
        failures = 2

        def arrange(self, batch: MetricBatch) -> MetricBatch:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("can't start new thread")
            return batch

    repository = Failing()
    journal, worker, _ = make(repository, size=1)
    await journal.offer(batch(1, 3.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[3.0]])
    await stop(journal, worker)


async def test_a_worker_that_dies_is_no_secret() -> None:
    """Readiness says so, the log has a CRITICAL line, and a drain does not claim that all was stored."""

    class BrokenJournal(MemoryJournal):
        async def read(self, rows_max: int) -> list[Entry]:
            raise MemoryError("no more")

    levels: list[str] = []
    sink = logger.add(lambda message: levels.append(message.record["level"].name), level="ERROR")
    journal = BrokenJournal(limits())
    worker = BatchWorker(journal, ScriptedRepository(), FlushPolicy(1, 1000), Telemetry())
    worker.start_batch_processing()
    await journal.offer(batch(), Ack.QUEUED)
    journal.close()
    assert not await worker.drain(10)
    logger.remove(sink)
    assert "MemoryError" in str(worker.failure)
    assert levels == ["CRITICAL"]


async def test_a_stored_batch_that_takes_its_time_is_told() -> None:
    """A database that hangs without failing is seen by readiness after ten seconds."""
    now = 100.0
    repository = ScriptedRepository()
    repository.gate.clear()
    journal = MemoryJournal(limits())
    policy, telemetry = FlushPolicy(1, 1000, 10), Telemetry()
    worker = BatchWorker(journal, repository, policy, telemetry, clock=lambda: now)
    worker.start_batch_processing()
    await journal.offer(batch(), Ack.QUEUED)
    await asyncio.wait_for(repository.entered.wait(), 10)
    now = 110.0
    told = [worker.failure]
    now = 111.0
    told.append(worker.failure)
    repository.gate.set()
    await stop(journal, worker)
    assert [*told, worker.failure] == [None, "the database has been storing a batch for 11 s", None]
    assert value(telemetry, "ingestor_flush_seconds_sum") == 11


async def test_a_flush_that_dies_is_not_taken_for_one_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never should, and then nothing may say that all is well: whoever asks is told to restart the server."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, size=1)

    criticals: list[str] = []
    sink = logger.add(lambda message: criticals.append(message.record["message"]), level="CRITICAL")

    async def broken(entries: object, outcome: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(journal, "settle", broken)
    await journal.offer(batch(1, 1.0), Ack.QUEUED)
    async with asyncio.timeout(10):
        while worker.death is None:
            await asyncio.sleep(0.001)
    assert worker.death == "the batch worker died (ZeroDivisionError()): restart the server"
    assert worker.failure == worker.death
    journal.close()
    assert not await worker.drain(10)
    assert journal.held_rows == 1
    logger.remove(sink)
    assert criticals == ["the batch worker died: nothing is stored any more"], "and that once"
