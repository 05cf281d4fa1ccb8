"""Questions give way while metrics wait, and only then; by a clock that stands still until somebody sleeps."""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass, field

import pytest

from ingestor.errors import Overloaded
from ingestor.storage.reading.giving_way import GivingWay


class Leaping(selectors.SelectSelector):
    """Makes of a loop's waiting a leap of its clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)


def leaping_loop() -> asyncio.AbstractEventLoop:
    """One whose clock stands still while anything is to be done."""
    selector = Leaping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    return loop


@dataclass
class World:
    """A clock that moves by sleep and work alone, and whether metrics wait."""

    now_s: float = 0.0
    busy: bool = True
    slept_s: float = 0.0
    relieved_at_s: float = float("inf")
    way: GivingWay = field(init=False)

    def __post_init__(self) -> None:
        self.way = self.made(0.1)

    def made(self, share: float) -> GivingWay:
        return GivingWay(
            share,
            lambda: self.busy and self.now_s < self.relieved_at_s,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds
        await asyncio.sleep(0)

    async def ask(self, takes_s: float) -> None:
        await self.way.clear()
        with self.way.counted():
            self.now_s += takes_s


async def test_a_loop_of_questions_gets_its_share_while_metrics_wait() -> None:
    """However many ask, and however little they pause."""
    world = World()

    async def loop() -> None:
        while world.now_s < 100:
            await world.ask(0.05)

    await asyncio.gather(*(loop() for _ in range(4)))
    asked_s = world.now_s - world.slept_s
    # What was saved before, at the most a second, and what the last of them owe.
    assert 9.5 <= asked_s <= 11.5


async def test_a_page_of_charts_does_not_wait() -> None:
    """Nobody asked lately, and it is asked for again only after a while."""
    world = World()
    for _ in range(5):
        for _ in range(12):
            await world.ask(0.08)
        world.now_s += 10
    assert world.slept_s == 0


async def test_nobody_waits_while_no_metrics_do() -> None:
    world = World(busy=False)
    for _ in range(100):
        await world.ask(1.0)
    assert world.slept_s == 0
    world.busy = True
    await world.ask(0.05)
    # What was asked before is not held against anybody.
    assert world.slept_s == 0


async def test_a_share_of_all_is_no_bound() -> None:
    world = World()
    world.way = world.made(1.0)
    for _ in range(10):
        await world.ask(5.0)
    assert world.slept_s == 0


async def test_who_waits_goes_on_when_metrics_wait_no_longer() -> None:
    """Soon, whatever is owed."""
    world = World()
    await world.ask(1.4)
    world.relieved_at_s = world.now_s + 0.25
    await world.ask(0.1)
    assert world.slept_s == pytest.approx(0.3)


async def test_who_would_wait_for_long_is_refused_soon() -> None:
    """And told for how long: questions owe a second at most, or one would shut out everybody for minutes."""
    world = World()
    await world.ask(60.0)
    with pytest.raises(Overloaded, match=r"10% .*QUERY_SHARE") as caught:
        await world.way.clear()
    assert world.slept_s == pytest.approx(1.0, abs=0.11)
    assert caught.value.retry_after_s == pytest.approx(10.0 - world.slept_s)
    world.now_s += 8
    await world.way.clear()
    assert world.now_s == pytest.approx(70.0, abs=0.01)


async def test_one_look_refuses_nobody() -> None:
    """Storing may be behind for a moment, as after one large request."""
    world = World()
    await world.ask(60.0)
    world.relieved_at_s = world.now_s + 0.5
    await world.ask(0.1)
    assert world.slept_s == pytest.approx(0.5, abs=0.11)


async def test_what_is_told_of_the_share_is_not_rounded() -> None:
    world = World()
    world.way = world.made(0.015)
    assert world.way.refusal() is None
    await world.ask(60.0)
    refusal = world.way.refusal()
    assert refusal is not None
    assert "1.5%" in str(refusal)
    assert refusal.retry_after_s == pytest.approx(1 / 0.015)


@pytest.mark.parametrize(("takes_s", "share_most"), [(0.05, 0.12), (0.3, 0.15), (1.0, 0.25), (3.0, 0.35)])
def test_many_at_once_get_little_more_than_the_share(takes_s: float, share_most: float) -> None:
    """Those under way count while they run: else all would begin before the first has counted."""

    async def asked_s() -> float:
        loop, spent_s = asyncio.get_running_loop(), 0.0
        way = GivingWay(0.1, lambda: True, clock=loop.time)

        async def ask_again_and_again() -> None:
            nonlocal spent_s
            while loop.time() < 300:
                try:
                    await way.clear()
                except Overloaded as refusal:
                    await asyncio.sleep(refusal.retry_after_s)
                    continue
                with way.counted():
                    await asyncio.sleep(takes_s)
                spent_s += takes_s

        await asyncio.gather(*(ask_again_and_again() for _ in range(12)))
        return spent_s / loop.time()

    with asyncio.Runner(loop_factory=leaping_loop) as runner:
        share = runner.run(asked_s())
    assert 0.08 <= share <= share_most


async def test_no_more_than_a_second_is_saved() -> None:
    """However long nobody asked."""
    world = World()
    world.now_s += 10_000
    await world.ask(1.3)
    await world.ask(0.1)
    assert world.slept_s == pytest.approx(3.0, abs=0.01)


async def test_nobody_passes_those_who_wait() -> None:
    """Not even who comes when nobody need wait any more, and those have not noticed yet."""
    world, awake, order = World(), asyncio.Event(), list[str]()

    async def sleep(seconds: float) -> None:
        await awake.wait()
        world.now_s += seconds

    world.way = GivingWay(0.1, lambda: world.busy, clock=lambda: world.now_s, sleep=sleep)
    await world.ask(1.2)

    async def ask(name: str) -> None:
        await world.ask(0.02)
        order.append(name)

    first = asyncio.create_task(ask("first"))
    await asyncio.sleep(0)
    world.busy = False
    second = asyncio.create_task(ask("second"))
    await asyncio.sleep(0)
    assert not second.done()
    awake.set()
    await asyncio.gather(first, second)
    assert order == ["first", "second"]


async def test_nobody_passes_those_who_have_not_woken_up_yet() -> None:
    """Who goes on may ask again in the same breath."""
    world, order = World(), list[str]()
    await world.ask(1.01)

    async def first() -> None:
        await world.way.clear()
        order.append("first")
        await world.way.clear()
        order.append("first again")

    async def second() -> None:
        await world.way.clear()
        order.append("second")

    await asyncio.gather(first(), second())
    assert order == ["first", "second", "first again"]
