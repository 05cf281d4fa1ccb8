"""Summaries are made of what is new, sooner for who asks, and for a share of the time; by a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from loguru import logger

from ingestor.errors import SchemaProblem, StorageError, StorageUnavailable
from ingestor.storage.summaries import Summaries


class Table:
    """What is stored, what is summarized, and what that takes."""

    def __init__(self) -> None:
        self.stored_to = 1
        self.now_s = 0.0
        self.takes_s = 0.01
        self.failure: StorageError | None = None
        self.slept_s: list[float] = []
        self.summarized: list[int] = []
        self.happened = asyncio.Event()
        self.summaries = self.made(self.summarize)

    def made(self, summarize: Callable[[], Awaitable[None]], timeout_s: float = 30.0) -> Summaries:
        return Summaries(
            summarize,
            lambda: self.stored_to,
            clock=lambda: self.now_s,
            sleep=self.sleep,
            timeout_s=timeout_s,
        )

    async def rests_s(self, count: int) -> list[float]:
        """How long it rests before each of so many looks, while somebody asks all the time."""
        first = len(self.slept_s)
        keeping = asyncio.create_task(self.summaries.keep())
        while len(self.slept_s) < first + count:
            self.summaries.asked()
            await asyncio.sleep(0)
        keeping.cancel()
        await asyncio.wait({keeping})
        return self.slept_s[first : first + count]

    async def summarize(self) -> None:
        self.now_s += self.takes_s
        if self.failure is not None:
            raise self.failure
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
    table.failure = StorageUnavailable("gone")
    await table.summaries.look()
    table.failure = None
    await table.summaries.look()
    assert table.summarized == [1]


async def test_who_asks_is_heeded_and_the_database_is_not_kept_busy() -> None:
    """One that takes long rests for nine times as long."""
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
    assert table.slept_s[:4] == pytest.approx([0.5, 0.5, 13.5, 0.5])


@pytest.mark.parametrize(
    ("failure", "rest_s"),
    [
        (StorageUnavailable("gone"), 5.0),
        (StorageError("unclear"), 60.0),
        (SchemaProblem("no such function"), 60.0),
    ],
)
async def test_it_does_not_insist(failure: StorageError, rest_s: float) -> None:
    """What fails is tried again later, however often somebody asks."""
    table = Table()
    table.failure = failure
    assert await table.rests_s(3) == [0.5, rest_s, rest_s]


async def test_where_nothing_is_new_it_does_not_rest_for_what_was() -> None:
    table = Table()
    table.takes_s = 2.0
    assert await table.rests_s(3) == [0.5, 18.0, 0.5]


async def test_it_is_bounded_in_time() -> None:
    """It is given up, tried again later, and the rest goes on."""
    table, stuck = Table(), asyncio.Event()

    async def summarize() -> None:
        await stuck.wait()
        await table.summarize()

    table.summaries = table.made(summarize, timeout_s=0.01)
    async with asyncio.timeout(5):
        await table.summaries.look()
    assert table.summarized == []
    assert await table.rests_s(1) == [60.0]
    stuck.set()
    await table.summaries.look()
    assert table.summarized == [1]


async def test_it_is_given_up_after_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody says otherwise: the event loop's clock is put forward."""
    loop = asyncio.get_running_loop()
    true_s = loop.time
    began = asyncio.Event()

    async def summarize() -> None:
        began.set()
        await asyncio.Event().wait()

    looks = asyncio.create_task(Summaries(summarize, lambda: 1).look())
    await began.wait()
    for put_forward_s, is_over in ((25.0, False), (30.0, True)):
        monkeypatch.setattr(loop, "time", lambda by_s=put_forward_s: true_s() + by_s)
        for _ in range(5):
            await asyncio.sleep(0)
        assert looks.done() == is_over


async def test_what_somebody_has_to_mend_is_told_once() -> None:
    """And again when it has worked meanwhile."""
    table, told = Table(), list[str]()
    ours = logger.add(told.append, level="WARNING", format="{message}")
    for failure in (
        SchemaProblem("one"),
        SchemaProblem("two"),
        StorageUnavailable("gone"),
        None,
        SchemaProblem("three"),
    ):
        table.failure = failure
        table.stored_to += 1
        await table.summaries.look()
    logger.remove(ours)
    assert [line.split()[-1] for line in told] == ["one", "three"]
