"""What share of the time something took: all, none, and what lies between; and whether storing takes most of it."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.batching import BatchWorker, FlushPolicy
from ingestor.batching.duty import Duty
from ingestor.journal import MemoryJournal
from ingestor.model import Ack
from ingestor.telemetry import Telemetry
from tests.batching.worker_kit import ScriptedRepository, stop
from tests.journal.contract import batch, limits


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_from_none_to_all_and_back() -> None:
    """Within a few seconds, two thirds of the way in the first."""
    clock = Clock()
    duty = Duty(clock)
    clock.now_s += 50
    assert duty.share == 0
    with duty.done():
        assert duty.share == 0
        clock.now_s += 1
        assert duty.share == pytest.approx(0.632, abs=0.001)
        clock.now_s += 9
        assert duty.share > 0.999
    clock.now_s += 1
    assert duty.share == pytest.approx(0.368, abs=0.001)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_short_spells_are_added_up(share: float) -> None:
    """Whether somebody looks meanwhile or not."""
    clock = Clock()
    duty = Duty(clock)
    for turn in range(200):
        with duty.done():
            clock.now_s += share * 0.05
            if turn % 3 == 0:
                assert 0 <= duty.share <= 1
        clock.now_s += (1 - share) * 0.05
    assert duty.share == pytest.approx(share, abs=0.03)


def test_what_fails_has_ended_too() -> None:
    """Else it would be at it for good."""
    clock = Clock()
    duty = Duty(clock)
    with pytest.raises(ValueError, match="no"), duty.done():
        clock.now_s += 5
        raise ValueError("no")
    clock.now_s += 10
    assert duty.share < 0.001


_BUSY = [False, False, True, False, False]


@pytest.mark.parametrize(
    ("rows", "batch_size", "busy"),
    [(2_500, 20_000, _BUSY), (2_499, 20_000, [False] * 5), (300, 30, _BUSY), (299, 30, [False] * 5)],
)
async def test_storing_is_busy(rows: int, batch_size: int, busy: list[bool]) -> None:
    """With large batches, for most of the time, or those as large as they may become; others take as long where the
    database is far away, and what takes very long waits for something."""
    clock = Clock()
    repository = ScriptedRepository()
    repository.gate.clear()
    journal = MemoryJournal(limits())
    worker = BatchWorker(journal, repository, FlushPolicy(batch_size, 0.001, 10), Telemetry(), clock=clock)
    worker.start_batch_processing()
    told = [worker.busy]
    await journal.offer(batch(rows), Ack.QUEUED)
    await asyncio.wait_for(repository.entered.wait(), 10)
    clock.now_s += 0.5
    told.append(worker.busy)
    clock.now_s += 0.5
    told.append(worker.busy)
    clock.now_s += 10
    told.append(worker.busy)
    repository.gate.set()
    await repository.until(lambda: len(repository.stored) == 1)
    await stop(journal, worker)
    clock.now_s += 1.0
    assert [*told, worker.busy] == busy
