"""Who waits for a disk that hangs as the server stops: each is told what is known, and nothing that was taken is
left out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ingestor.errors import TooLate, Unavailable
from ingestor.journal import RequestIds
from ingestor.model import Ack, Outcome, Request
from tests.journal.contract import MANY, batch, limits, turns, until, values
from tests.journal.disk_kit import opened, written

UNWRITTEN = "before this was written, but it may still be stored"


def request(name: str) -> Request:
    return Request("", name, b"f", 1)


async def test_who_waits_for_the_disk_as_the_server_stops_is_told(tmp_path: Path) -> None:
    """What is being written, and what comes behind it: whether it will be there nobody knows yet. Then the disk
    takes all of it, which can be stored."""
    async with opened(tmp_path) as (journal, log):
        log.go.clear()
        waiting = [asyncio.create_task(journal.offer(batch(1, 1.0), Ack.COMMITTED))]
        await until(lambda: log.appends == 1)
        for value, level in ((2.0, Ack.JOURNALED), (3.0, Ack.COMMITTED)):
            waiting.append(asyncio.create_task(journal.offer(batch(1, value), level)))
        await journal.offer(batch(1, 4.0), Ack.QUEUED)
        await until(lambda: journal.unwritten_rows == 4)
        journal.give_up_commits()
        for each in waiting:
            with pytest.raises(TooLate, match=UNWRITTEN):
                await asyncio.wait_for(each, 5)
        assert (journal.held_rows, journal.unwritten_rows) == (1, 4)
        log.go.set()
        await asyncio.wait_for(written(journal), 5)
        entries = await journal.read(MANY)
        assert sorted(values(entries)) == [1.0, 2.0, 3.0, 4.0]
        await journal.settle(entries, Outcome())
        assert await journal.end(5) == 0


async def test_who_comes_in_the_last_second_is_told(tmp_path: Path) -> None:
    """When the disk still hangs a moment later; who comes again is, too. Who finds no room is refused."""
    requests = RequestIds()
    async with opened(tmp_path, limits(rows=3, wait_s=60.0), requests) as (journal, log):
        log.go.clear()
        await journal.offer(batch(1, 1.0), Ack.QUEUED)
        await until(lambda: log.appends == 1)
        full = asyncio.create_task(journal.offer(batch(3), Ack.JOURNALED))
        await until(lambda: journal.waiting_offers == 1)
        journal.give_up_commits()
        with pytest.raises(Unavailable, match="is stopping: nothing was taken"):
            await asyncio.wait_for(full, 5)
        for value, name in ((2.0, "r"), (3.0, "s")):
            late = asyncio.create_task(journal.offer(batch(1, value), Ack.JOURNALED, request(name)))
            await turns()
            again = await requests.find(request(name))
            assert again is not None
            for asking in (late, again.reached(Ack.COMMITTED), again.reached(Ack.JOURNALED)):
                with pytest.raises(TooLate, match=UNWRITTEN):
                    await asyncio.wait_for(asking, 5)
        log.go.set()
        await asyncio.wait_for(written(journal), 5)
        again = await requests.find(request("r"))
        assert again is not None
        assert not await asyncio.wait_for(again.reached(Ack.JOURNALED), 5), "what is reached is"
        with pytest.raises(TooLate, match="kept in the journal"):
            await asyncio.wait_for(again.reached(Ack.COMMITTED), 5)


async def test_a_disk_that_is_well_is_waited_for(tmp_path: Path) -> None:
    """Who comes in the last second is journaled, and so told, also long after others were given up."""
    async with opened(tmp_path) as (journal, _):
        journal.give_up_commits()
        for value in (1.0, 2.0):
            assert not await asyncio.wait_for(journal.offer(batch(1, value), Ack.JOURNALED), 5)
        assert values(await journal.read(MANY)) == [1.0, 2.0]
