"""Summaries are made of what is new, sooner for who asks, and for a share of the time; by a clock of its own."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.errors import StorageUnavailable
from ingestor.storage.summaries import Summaries


class Table:
    """What is stored, what is summarized, and what that takes."""

    def __init__(self) -> None:
        self.stored_to = 1
        self.now_s = 0.0
        self.takes_s = 0.01
        self.failing = False
        self.slept_s: list[float] = []
        self.summarized: list[int] = []
        self.happened = asyncio.Event()
        self.summaries = Summaries(
            self.summarize, lambda: self.stored_to, clock=lambda: self.now_s, sleep=self.sleep
        )

    async def summarize(self) -> None:
        self.now_s += self.takes_s
        if self.failing:
            raise StorageUnavailable("gone")
        self.summarized.append(self.stored_to)
        self.happened.set()

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        await asyncio.sleep(0)


async def test_only_what_is_new_is_summarized() -> None:
    table = Table()
    await table.summaries.look()
    await table.summaries.look()
    table.stored_to = 2
    await table.summaries.look()
    assert table.summarized == [1, 2]


async def test_what_failed_is_tried_again() -> None:
    table = Table()
    table.failing = True
    await table.summaries.look()
    table.failing = False
    await table.summaries.look()
    assert table.summarized == [1]


async def test_who_asks_is_heeded_and_the_database_is_not_kept_busy() -> None:
    """One that takes long rests for as long again."""
    table = Table()
    keeping = asyncio.create_task(table.summaries.keep())
    for stored_to, takes_s in ((2, 0.01), (3, 1.5), (4, 0.01)):
        table.stored_to, table.takes_s = stored_to, takes_s
        table.happened.clear()
        table.summaries.asked()
        async with asyncio.timeout(4):  # of the five seconds after which it would look unasked
            await table.happened.wait()
    await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.wait({keeping})
    assert table.summarized == [2, 3, 4]
    assert table.slept_s[:4] == pytest.approx([0.5, 0.5, 3.0, 0.5])
