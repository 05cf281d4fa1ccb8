"""What the worker's tests share: a repository that fails on command, a journal that can't be read, and a worker
between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ingestor.batching import Backoff, BatchWorker, FlushPolicy
from ingestor.errors import JournalProblem
from ingestor.journal import MemoryJournal
from ingestor.model import Delivery, Entry, MetricBatch, Outcome
from ingestor.telemetry import Telemetry
from tests.journal.contract import MANY, limits

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


AGAIN = ("INFO", "the database stores batches again")
UNREADABLE = ("ERROR", "nothing can be stored until the journal can be read: no file descriptors")
ELSEWHERE = (
    "WARNING",
    "the database's cursor is not where it was left: storing goes on from there",
)
UNFORESEEN = ("ERROR", "storing a batch failed in a way that was not foreseen")


def kept(reason: str) -> tuple[str, str]:
    return "WARNING", f"a batch could not be stored, is kept and will be tried again: {reason}"
