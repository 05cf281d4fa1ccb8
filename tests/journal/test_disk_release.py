"""When the log hears of what is committed, and who waits for the room that this makes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from ingestor.journal import RequestIds
from ingestor.journal import inlet as inlet_module
from ingestor.journal import outlet as outlet_module
from ingestor.model import Ack, Outcome, Request
from tests.journal.contract import MANY, batch, limits, settle_all, turns, until
from tests.journal.disk_kit import opened


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens by itself for as long as a test lasts."""
    monkeypatch.setattr(inlet_module, "_REST_S", 60.0)
    monkeypatch.setattr(outlet_module, "_RELEASE_S", 60.0)


def releasing() -> list[asyncio.Task[object]]:
    """The tasks that tell the log."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "journal-release"]


@pytest.mark.usefixtures("slow")
async def test_who_waits_for_room_gets_what_is_let_go_of_at_once(tmp_path: Path) -> None:
    """The log hears of the commit without delay when somebody presses."""
    async with opened(tmp_path, limits(wait_s=60.0)) as (journal, log):
        log.room = 0
        await journal.offer(batch(), Ack.JOURNALED)
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: journal.waiting_offers == 1)
        log.room = None
        await settle_all(journal)
        await asyncio.wait_for(waiting, 5)


@pytest.mark.usefixtures("slow")
async def test_who_waits_for_room_gets_what_turns_out_to_be_stored(tmp_path: Path) -> None:
    """The database says it when it is there again."""
    async with opened(tmp_path, limits(wait_s=60.0)) as (journal, log):
        log.room = 0
        await journal.offer(batch(), Ack.JOURNALED)
        waiting = asyncio.create_task(journal.offer(batch(), Ack.JOURNALED))
        await until(lambda: journal.waiting_offers == 1)
        log.room = None
        await journal.rewind(1)
        await asyncio.wait_for(waiting, 5)


@pytest.mark.usefixtures("slow")
async def test_the_log_is_not_told_of_each_commit_by_itself(tmp_path: Path) -> None:
    """The next write tells it by the way. One task waits for that, however many commits there are."""
    async with opened(tmp_path) as (journal, log):
        for _ in range(2):
            await journal.offer(batch(), Ack.JOURNALED)
        for _ in range(2):
            await journal.settle(await journal.read(1), Outcome())
        await turns()
        await journal.bind(UUID(int=7))  # all that was asked of the log before has been done then
        [task] = releasing()
        assert (log.committed_hint, task.done()) == (0, False)
        await journal.offer(batch(), Ack.JOURNALED)
        assert log.committed_hint == 2
        task.cancel()


async def test_an_end_waits_until_the_log_knows_what_is_committed(tmp_path: Path) -> None:
    """So that the next start asks the database for nothing that it has."""
    async with opened(tmp_path) as (journal, log):
        await journal.offer(batch(), Ack.JOURNALED)
        await settle_all(journal)
        assert log.committed_hint == 0
    assert releasing() == []
    async with opened(tmp_path, at=None) as (journal, log):
        assert (log.committed_hint, journal.held_rows) == (1, 0)


async def test_a_read_that_gave_nothing_is_not_settled(tmp_path: Path) -> None:
    """What is read next is what is settled next."""
    async with opened(tmp_path) as (journal, _):
        assert await journal.read(MANY) == []
        await journal.offer(batch(), Ack.JOURNALED)
        await settle_all(journal)
        assert journal.held_rows == 0


async def test_what_the_database_kept_is_remembered(tmp_path: Path) -> None:
    """A repetition needn't ask it, unless it went back."""
    ids = RequestIds()
    request = Request("", "r", b"f" * 16, 1)
    async with opened(tmp_path, None, ids) as (journal, _):
        await journal.offer(batch(), Ack.JOURNALED, request)
        await settle_all(journal)
        await journal.rewind(1)
        assert await ids.find(request) is not None
