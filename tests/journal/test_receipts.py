"""What those hear who wait for one request, whatever the others who wait for it do."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from ingestor.errors import TooLate, Unavailable
from ingestor.journal.receipts import Receipt
from ingestor.model import Ack
from tests.journal.contract import turns


async def test_who_waits_for_the_commit_is_known_whatever_others_wait_for() -> None:
    """Another one is content with less, and a third gives up: without knowing of the first nobody would tell."""
    receipt, known = Receipt(awaited=True), list[bool]()
    first = asyncio.create_task(receipt.reached(Ack.COMMITTED))
    second = asyncio.create_task(receipt.reached(Ack.JOURNALED))
    await turns()
    known.append(receipt.awaited)
    third = asyncio.create_task(receipt.reached(Ack.COMMITTED))
    await turns()
    third.cancel()
    await turns()
    known.append(receipt.awaited)
    receipt.advance(Ack.JOURNALED)
    await asyncio.wait_for(second, 5)
    first.cancel()
    await turns()
    known.append(receipt.awaited)
    assert known == [True, True, False], "nobody does any more in the end"


async def test_who_gives_up_in_the_same_moment_is_no_mistake() -> None:
    """It is cancelled, and has not heard of that yet: the others are told, and so is who tells."""
    receipt = Receipt(awaited=True)
    waiting = [asyncio.create_task(receipt.reached(Ack.COMMITTED)) for _ in range(2)]
    await turns()
    waiting[0].cancel()
    receipt.advance(Ack.COMMITTED)
    assert await asyncio.wait_for(waiting[1], 5) == ()
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()


async def test_what_failed_is_not_kept() -> None:
    """Who comes later, as the server stops, is not told otherwise."""
    receipt = Receipt()
    receipt.fail(Unavailable("lost", 1.0))
    receipt.abandon(TooLate("kept"))
    with pytest.raises(Unavailable, match="lost"):
        await receipt.reached(Ack.COMMITTED)


@pytest.mark.parametrize("how", ["fail", "abandon"])
async def test_who_is_told_has_a_traceback_of_its_own(how: str) -> None:
    """However many were told the same before: it would grow with each, and what it holds live for as long."""
    receipt, refusal = Receipt(), TooLate("the server stopped")
    receipt.fail(refusal) if how == "fail" else receipt.abandon(refusal)
    for _ in range(100):
        with pytest.raises(TooLate) as told:
            await receipt.reached(Ack.COMMITTED)
        assert len(traceback.extract_tb(told.value.__traceback__)) < 10
