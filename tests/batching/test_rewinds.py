"""A batch worker whose database's cursor is elsewhere: what is due is stored, and once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from loguru import logger

from ingestor.batching import BatchWorker, FlushPolicy
from ingestor.errors import CursorElsewhere, StorageUnavailable
from ingestor.model import Ack, Outcome
from ingestor.telemetry import Telemetry
from tests.batching.worker_kit import (
    AGAIN,
    ELSEWHERE,
    QUICK,
    ScriptedRepository,
    kept,
    make,
    stop,
    value,
)
from tests.journal.contract import batch, turns
from tests.journal.disk_kit import opened


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
