"""The batch worker between a real queue and a repository that fails on command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger

from ingestor.batching import Backoff, BatchWorker, FlushPolicy
from ingestor.batching import worker as worker_module
from ingestor.errors import CursorElsewhere, JournalProblem, SchemaProblem, StorageUnavailable
from ingestor.journal import MemoryJournal
from ingestor.model import Ack, DeadRow, Delivery, Entry, MetricBatch, Outcome, Placed, Request
from ingestor.telemetry import Telemetry
from tests.journal.contract import MANY, batch, limits, turns
from tests.journal.disk_kit import opened

QUICK = Backoff(first_s=0.001, most_s=0.002)


class ScriptedRepository:
    """Keeps what it is given, after raising or answering what the script says."""

    def __init__(self, *script: Exception | Outcome) -> None:
        self.script = list(script)
        self.stored: list[list[float]] = []
        self.deliveries: list[Delivery] = []
        self.attempts: list[list[float]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.changed = asyncio.Event()
        self.entered = asyncio.Event()

    def arrange(self, batch: MetricBatch) -> MetricBatch:
        return batch

    async def bulk_insert_metrics(self, delivery: Delivery) -> Outcome:
        self.entered.set()
        await self.gate.wait()
        values = delivery.batch.columns.column("value").to_pylist()
        self.attempts.append(values)
        self.changed.set()
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            self.deliveries.append(delivery)
            return step
        self.stored.append(values)
        self.deliveries.append(delivery)
        return Outcome()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 10)


def make(
    repository: ScriptedRepository, *, size: int = MANY, interval_s: float = 1000, rows: int = MANY
) -> tuple[MemoryJournal, BatchWorker, Telemetry]:
    telemetry = Telemetry()
    journal = MemoryJournal(limits(rows=rows, wait_s=30), on_taken=telemetry.received.inc)
    worker = BatchWorker(journal, repository, FlushPolicy(size, interval_s, 10), telemetry, backoff=QUICK)
    worker.start_batch_processing()
    return journal, worker, telemetry


def value(telemetry: Telemetry, name: str) -> float:
    found = telemetry.registry.get_sample_value(name)
    assert found is not None
    return found


async def nothing_goes_on() -> None:
    """All that the worker began has ended."""
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def stop(journal: MemoryJournal, worker: BatchWorker) -> None:
    journal.close()
    assert await worker.drain(10)
    await nothing_goes_on()


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """Levels and texts of what the log says."""
    lines: list[tuple[str, str]] = []
    sink = logger.add(lambda line: lines.append((line.record["level"].name, line.record["message"])))
    yield lines
    logger.remove(sink)


class SickJournal(MemoryJournal):
    """Its disk fails so often when it is read, and when it is rewound; and so often a read gives nothing."""

    reads = rewinds = nothings = 0

    async def read(self, rows_max: int) -> list[Entry]:
        if self.nothings:
            self.nothings -= 1
            return []
        if self.reads:
            self.reads -= 1
            raise JournalProblem("no file descriptors")
        return await super().read(rows_max)

    async def rewind(self, position: int) -> int:
        if self.rewinds:
            self.rewinds -= 1
            raise JournalProblem("no file descriptors")
        return await super().rewind(position)


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


async def test_each_delivery_moves_the_cursor_from_where_the_last_one_left_it() -> None:
    """Without gaps, also over failures."""
    repository = ScriptedRepository(StorageUnavailable("gone"))
    journal, worker, _ = make(repository, size=1)
    for number in range(3):
        await journal.offer(batch(1, float(number)), Ack.COMMITTED)
    await stop(journal, worker)
    assert [(each.after, each.position) for each in repository.deliveries] == [(0, 1), (1, 2), (2, 3)]


async def test_what_the_database_has_not_is_read_again_in_order() -> None:
    """A cursor elsewhere: what is being stored and what is prepared are dropped, and come again from there."""
    repository = ScriptedRepository(CursorElsewhere(0), CursorElsewhere(0))
    repository.gate.clear()
    journal, worker, telemetry = make(repository, size=2)
    for number in range(50):
        await journal.offer(batch(1, float(number)), Ack.QUEUED)
    repository.gate.set()
    await stop(journal, worker)
    assert [value for stored in repository.stored for value in stored] == [float(n) for n in range(50)]
    assert journal.held_rows == 0
    assert value(telemetry, "ingestor_journal_rewinds_total") == 2
    assert value(telemetry, "ingestor_metrics_committed_total") == 50


async def test_what_the_database_has_already_is_not_stored_again() -> None:
    """A cursor ahead of us: what lies before it counts as committed, and storing goes on behind it. Who reads the
    log is told where it was looked for and found."""
    told: list[dict[str, object]] = []
    sink = logger.add(lambda message: told.append(message.record["extra"]), level="WARNING")
    repository = ScriptedRepository(CursorElsewhere(2))
    repository.gate.clear()
    journal, worker, telemetry = make(repository, size=6)
    for number in range(6):
        await journal.offer(batch(1, float(number)), Ack.QUEUED)
    await asyncio.wait_for(repository.entered.wait(), 10)
    repository.gate.set()
    await stop(journal, worker)
    logger.remove(sink)
    assert told == [{"expected": 0, "found": 2, "metrics": -2}]
    assert [(each.after, each.position) for each in repository.deliveries] == [(2, 6)]
    assert repository.stored == [[2.0, 3.0, 4.0, 5.0]]
    assert (worker.stored_to, value(telemetry, "ingestor_metrics_committed_total")) == (6, 6)
    assert value(telemetry, "ingestor_metrics_received_total") == 6


async def test_what_the_database_lost_is_received_once_more(tmp_path: Path) -> None:
    """A restored database: what it had is stored again and counted twice, on both sides of the books."""
    repository = ScriptedRepository(Outcome(), CursorElsewhere(0))
    telemetry = Telemetry()
    async with opened(tmp_path, retention_s=1000, on_taken=telemetry.received.inc) as (journal, _):
        worker = BatchWorker(journal, repository, FlushPolicy(1, 1000), telemetry, backoff=QUICK)
        worker.start_batch_processing()
        await journal.offer(batch(2, 1.0), Ack.COMMITTED)
        await journal.offer(batch(3, 2.0), Ack.COMMITTED)
        journal.close()
        assert await worker.drain(10)
        assert journal.held_rows == 0
    assert sum(repository.stored, []) == [1.0, 1.0, 2.0, 2.0, 2.0]  # noqa: RUF017 - two short lists
    for name in ("received", "committed"):
        assert value(telemetry, f"ingestor_metrics_{name}_total") == 7


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


AGAIN = ("INFO", "the database stores batches again")
UNREADABLE = ("ERROR", "nothing can be stored until the journal can be read: no file descriptors")
ELSEWHERE = (
    "WARNING",
    "the database's cursor is not where it was left: storing goes on from there",
)
UNFORESEEN = ("ERROR", "storing a batch failed in a way that was not foreseen")


def kept(reason: str) -> tuple[str, str]:
    return "WARNING", f"a batch could not be stored, is kept and will be tried again: {reason}"


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


async def test_our_own_mistakes_cost_no_rows() -> None:
    """An exception that nobody foresaw is retried like an outage."""
    repository = ScriptedRepository(ZeroDivisionError("oops"))
    journal, worker, telemetry = make(repository, size=1)
    await journal.offer(batch(1, 3.0), Ack.QUEUED)
    await repository.until(lambda: repository.stored == [[3.0]])
    await stop(journal, worker)
    assert value(telemetry, "ingestor_flush_failures_total") == 1


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


async def test_an_entry_is_never_split() -> None:
    """A request larger than BATCH_SIZE is one transaction all the same."""
    repository = ScriptedRepository()
    journal, worker, _ = make(repository, size=2)
    await journal.offer(batch(5), Ack.QUEUED)
    await repository.until(lambda: [len(values) for values in repository.stored] == [5])
    await stop(journal, worker)


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


async def test_the_last_batch_may_have_to_be_read_again(told: list[tuple[str, str]]) -> None:
    """A drain does not end before that is stored, and what failed before goes on failing until then."""
    repository = ScriptedRepository(StorageUnavailable("gone"), CursorElsewhere(0))
    repository.gate.clear()
    journal, worker, _ = make(repository, size=1)
    await journal.offer(batch(1, 3.0), Ack.QUEUED)
    await asyncio.wait_for(repository.entered.wait(), 10)
    journal.close()
    await turns()
    repository.gate.set()
    await stop(journal, worker)
    assert (repository.stored, journal.held_rows) == ([[3.0]], 0)
    assert told == [kept("gone"), ELSEWHERE, AGAIN]


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
