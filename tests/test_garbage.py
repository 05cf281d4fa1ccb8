"""When garbage is collected in a running server."""

from __future__ import annotations

import asyncio
import gc
import weakref

from ingestor.garbage import collected_aside


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def old_garbage() -> weakref.ref[Knot]:
    """In the oldest generation, where no collection of the younger ones looks."""
    knot = Knot()
    gc.collect()
    return weakref.ref(knot)


async def until_gone(garbage: weakref.ref[Knot]) -> None:
    async with asyncio.timeout(10):
        while garbage() is not None:
            await asyncio.sleep(0.005)


async def test_old_garbage_is_collected_while_little_waits() -> None:
    """And not while much does, unless that goes on for very long."""
    held = 1_000_000
    async with collected_aside(lambda: held, every_s=0.01):
        garbage = old_garbage()
        await asyncio.sleep(0.1)
        assert garbage() is not None
        held = 0
        await until_gone(garbage)
        held = 1_000_000
        await until_gone(old_garbage())


async def test_the_collector_is_left_as_it_was() -> None:
    """What was frozen is thawed, and the thresholds are those of before."""
    before = gc.get_threshold()
    async with collected_aside(lambda: 0):
        assert gc.get_threshold() != before
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
