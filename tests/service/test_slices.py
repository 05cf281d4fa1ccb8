"""Long lists are worked through beside everything else: a slice a turn, one request at a time, not without end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from ingestor.errors import Overloaded
from ingestor.service import slices
from ingestor.service.slices import Slices, listed

MANY = 10 * slices._A_TURN
FEW = slices._FEW


class Working:
    """Somebody who has a place, and keeps it until `done`, or for ever."""

    def __init__(self, shared: Slices, items: int, name: str, begun: list[str]) -> None:
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._work(shared, items, name, begun))

    async def _work(self, shared: Slices, items: int, name: str, begun: list[str]) -> None:
        async with shared.place(items):
            begun.append(name)
            await self.done.wait()


async def turns(number: int = 5) -> None:
    """Lets whoever can go on do so."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("size", [0, 1, slices._A_TURN - 1, slices._A_TURN, slices._A_TURN + 1, MANY])
async def test_all_is_there_in_order(size: int) -> None:
    """Whatever the size has to do with that of a slice; nothing is a list, too."""
    assert await listed(iter(range(size))) == list(range(size))


async def test_no_turn_of_the_event_loop_has_more_than_a_slice() -> None:
    """Counted by somebody who has a turn of theirs between any two."""
    made = 0

    def making() -> Iterator[int]:
        nonlocal made
        while made < MANY:
            made += 1
            yield made

    working = asyncio.create_task(listed(making()))
    seen = [0]
    while not working.done():
        await asyncio.sleep(0)
        seen.append(made)
    steps = [after - before for before, after in pairwise(seen)]
    assert max(steps) == slices._A_TURN
    assert made == MANY


async def test_one_at_a_time_first_come_first_served() -> None:
    """Who has few does not wait behind those who have many, nor for more than its own."""
    shared, begun = Slices(), list[str]()
    first, second, third = (Working(shared, MANY, name, begun) for name in ("first", "second", "third"))
    await turns()
    assert begun == ["first"]
    few = Working(shared, FEW, "few", begun)
    await turns()
    assert begun == ["first", "few"]
    for worker in (first, second, third, few):
        worker.done.set()
        await worker.task
    assert begun == ["first", "few", "second", "third"]
    one_more = Working(shared, FEW + 1, "one more", begun)
    another = Working(shared, FEW + 1, "another", begun)
    await turns()
    assert begun[4:] == ["one more"]
    for worker in (one_more, another):
        worker.done.set()
        await worker.task


async def test_who_is_cancelled_keeps_nobody_waiting() -> None:
    """In the middle of the list and before its beginning; the next one has its turn."""
    shared, begun = Slices(), list[str]()
    asked_for = 0

    def making() -> Iterator[int]:
        nonlocal asked_for
        while True:
            asked_for += 1
            yield asked_for

    async def endless() -> None:
        async with shared.place(MANY):
            await listed(making())

    in_the_middle = asyncio.create_task(endless())
    waiting = Working(shared, MANY, "waiting", begun)
    last = Working(shared, MANY, "last", begun)
    await turns()
    assert asked_for > slices._A_TURN
    for given_up in (waiting.task, in_the_middle):
        given_up.cancel()
    await asyncio.gather(waiting.task, in_the_middle, return_exceptions=True)
    stopped_at = asked_for
    last.done.set()
    await last.task
    assert begun == ["last"]
    assert asked_for == stopped_at


async def test_an_error_in_the_middle_is_the_request_s_own() -> None:
    """It comes out as it is, and whoever waits goes on."""
    shared, begun = Slices(), list[str]()

    def broken() -> Iterator[int]:
        yield from range(slices._A_TURN + 1)
        raise ZeroDivisionError

    async def fails() -> None:
        async with shared.place(MANY):
            await listed(broken())

    failing, waiting = asyncio.create_task(fails()), Working(shared, MANY, "waiting", begun)
    waiting.done.set()
    with pytest.raises(ZeroDivisionError):
        await failing
    await waiting.task
    assert begun == ["waiting"]


async def test_what_waits_is_bounded() -> None:
    """The one who would be too much is told when to come again; one that is too large alone is served when nobody
    else is; and who ends, or gives up, leaves room."""
    shared, begun = Slices(), list[str]()
    whole = slices._WAITING_MAX
    alone = Working(shared, whole + 1, "alone", begun)
    await turns()
    assert begun == ["alone"]
    with pytest.raises(Overloaded) as refused:
        async with shared.place(FEW + 1):
            pass
    assert refused.value.retry_after_s > 0
    async with shared.place(FEW):
        begun.append("few")
    alone.done.set()
    await alone.task
    first, second = Working(shared, whole // 2, "first", begun), Working(shared, whole // 2, "second", begun)
    await turns()
    with pytest.raises(Overloaded):
        async with shared.place(FEW + 1):
            pass
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    third = Working(shared, whole // 2, "third", begun)
    first.done.set()
    third.done.set()
    await asyncio.gather(first.task, third.task)
    assert begun == ["alone", "few", "first", "third"]
