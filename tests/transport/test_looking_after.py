"""Connections are looked after again and again, all of them, whatever becomes of one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from loguru import logger

from ingestor.transport import looking_after
from ingestor.transport.looking_after import look_after

MANY = 2 * looking_after._AT_ONCE + 1


class Connection:
    def __init__(self, *, fails: bool = False) -> None:
        self.looks = 0
        self.fails = fails
        self.looked_at = asyncio.Event()

    def check(self, now: float) -> None:
        self.looks += 1
        self.looked_at.set()
        if self.fails:
            raise ZeroDivisionError


@pytest.fixture
def errors() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(found.append, level="ERROR", format="{message}")
    yield found
    logger.remove(sink)


async def test_the_fault_of_one_leaves_no_other_alone(errors: list[str]) -> None:
    """It is told, and even that one is looked at again."""
    broken, last = Connection(fails=True), Connection()
    looking = asyncio.create_task(look_after(lambda: [broken, last], 0.001))
    for _ in range(2):
        last.looked_at.clear()
        await asyncio.wait_for(last.looked_at.wait(), 10)
    assert broken.looks >= 2
    assert errors[0].startswith("a connection could not be looked after")
    assert not looking.done()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


async def test_many_take_several_turns_of_the_event_loop() -> None:
    """And those that come or go meanwhile disturb nobody: each of the others is looked at once."""
    many = [Connection() for _ in range(MANY)]
    there = list(many)
    by_then: list[int] = []

    def between() -> None:
        by_then.append(sum(each.looks for each in many))
        there.pop(0)
        there.append(Connection())

    class First(Connection):
        def check(self, now: float) -> None:
            super().check(now)
            asyncio.get_running_loop().call_soon(between)

    many[0] = there[0] = First()
    looking = asyncio.create_task(look_after(lambda: there, 20.0))
    await asyncio.wait_for(many[-1].looked_at.wait(), 10)
    looking.cancel()
    assert by_then == [looking_after._AT_ONCE]
    assert {each.looks for each in many} == {1}
    assert there[-1].looks == 0
