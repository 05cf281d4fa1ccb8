"""The door of a journal: nobody overtakes, and whoever leaves the line is counted no more."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import pytest

from ingestor.errors import UNTAKEN, Invalid, Overloaded, Unavailable
from ingestor.journal.admission import Admission, QueueLimits
from tests.journal.contract import MANY, turns


class Guest(NamedTuple):
    """Wants so much room."""

    size_bytes: int


class House:
    """What lies behind the door: so much room, and who is in."""

    def __init__(self, room: int, *, waiting: int = MANY, wait_s: float = 30.0) -> None:
        self.room = room
        self.inside: list[int] = []
        self.pressures = 0
        self.door: Admission[Guest] = Admission(
            QueueLimits(MANY, MANY, waiting, wait_s), self._fits, self._take, self._refusal, self._press
        )

    def comes(self, size: int) -> asyncio.Task[None]:
        return asyncio.create_task(self.door.enter(Guest(size)))

    def _fits(self, guest: Guest) -> bool:
        return guest.size_bytes <= self.room

    def _take(self, guest: Guest) -> None:
        self.room -= guest.size_bytes
        self.inside.append(guest.size_bytes)

    def _refusal(self) -> Overloaded:
        return Overloaded("full", 1.0)

    def _press(self) -> None:
        self.pressures += 1


def test_what_just_fits_is_no_mistake() -> None:
    """What never could is one, with what to do."""
    limits = QueueLimits(3, 100, 0, 0.0)
    limits.check(3, 100)
    for rows, size_bytes in ((4, 100), (3, 101)):
        with pytest.raises(Invalid, match=f"{rows} metrics of {size_bytes} bytes .*send smaller batches"):
            limits.check(rows, size_bytes)


async def test_room_lets_in_as_many_as_it_holds_in_their_order() -> None:
    """The first that does not fit holds up those behind it."""
    house = House(0)
    coming = [house.comes(size) for size in (2, 3, 4, 1)]
    await turns()
    assert (house.door.waiting, house.pressures, house.door.pressed) == (4, 4, True)
    house.room = 7
    house.door.room_made()
    await turns()
    assert [each.done() for each in coming] == [True, True, False, False]
    assert (house.inside, house.door.waiting) == ([2, 3], 2)
    house.room = 5
    house.door.room_made()
    await asyncio.gather(*coming)
    assert (house.inside, house.door.waiting, house.door.pressed) == ([2, 3, 4, 1], 0, False)


async def test_the_line_is_bounded_in_bytes_and_who_leaves_it_makes_place() -> None:
    """By being let in, by giving up, or because time is up."""
    house = House(0, waiting=5)
    first, second = house.comes(3), house.comes(2)
    await turns()
    with pytest.raises(Overloaded):
        await house.comes(1)
    second.cancel()
    await turns()
    third = house.comes(2)
    await turns()
    assert not third.done()
    house.room = 3
    house.door.room_made()
    await first
    fourth = house.comes(3)
    await turns()
    assert (fourth.done(), house.door.waiting) == (False, 2)
    house.room = 5
    house.door.room_made()
    await asyncio.gather(third, fourth)


async def test_without_a_wait_one_is_refused_at_once() -> None:
    """And presses until room is made."""
    house = House(0, wait_s=0.0)
    with pytest.raises(Overloaded):
        await house.door.enter(Guest(1))
    assert (house.door.waiting, house.door.pressed, house.pressures) == (0, True, 1)
    house.door.room_made()
    assert not house.door.pressed


async def test_whose_time_is_up_is_refused() -> None:
    """He presses as one who was refused at once does, and is in nobody's way any more."""
    house = House(1, wait_s=0.01)
    with pytest.raises(Overloaded):
        await house.door.enter(Guest(2))
    assert (house.door.waiting, house.door.pressed, house.pressures) == (0, True, 2)
    await house.door.enter(Guest(1))
    assert house.inside == [1]


async def test_nobody_is_let_in_after_the_end() -> None:
    """Those who wait are told, whatever room is made in the same moment."""
    house = House(0)
    waiting, gone = house.comes(1), house.comes(1)
    await turns()
    gone.cancel()
    house.door.close()
    house.room = 5
    house.door.room_made()
    with pytest.raises(Unavailable, match="nothing was taken") as refused:
        await waiting
    assert refused.value.retry_after_s == 1.0
    with pytest.raises(Unavailable, match="nothing was taken"):
        await house.door.enter(Guest(1))
    house.door.close()
    await turns()
    assert (house.inside, house.door.waiting, house.door.closed) == ([], 0, True)


async def test_who_is_let_in_is_in_whatever_comes_next() -> None:
    """An end in the same moment refuses nobody who was taken; the wait's own end is called off."""
    house = House(0, wait_s=0.01)
    waiting = house.comes(1)
    await turns()
    house.room = 1
    house.door.room_made()
    house.door.close()
    await waiting
    await asyncio.sleep(0.02)
    assert (house.inside, house.door.pressed) == ([1], False)


async def test_room_in_the_moment_in_which_time_is_up() -> None:
    """Who was let in is not refused any more, nor does he press."""
    house = House(0, wait_s=0.01)
    loop = asyncio.get_running_loop()

    def make_room() -> None:
        house.room = 1
        house.door.room_made()

    loop.call_later(0.01, make_room)
    waiting = house.comes(1)
    await turns()
    loop.call_soon(time.sleep, 0.02)  # so that both are due in one turn of the loop, this first
    await waiting
    assert (house.inside, house.door.pressed) == ([1], False)


async def test_who_gives_up_is_told_whether_he_was_taken() -> None:
    """Room in the same moment takes him, and then nobody may say that he was not."""
    house = House(0)
    taken, untaken = house.comes(1), house.comes(2)
    await turns()
    house.room = 1
    house.door.room_made()
    taken.cancel()
    untaken.cancel()
    for task, told in ((taken, ()), (untaken, (UNTAKEN,))):
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        assert cancelled.value.args == told
    assert house.inside == [1]


async def test_who_waits_as_the_server_stops_is_refused() -> None:
    """And who would have to later; who fits still comes in."""
    house = House(2)
    waiting = house.comes(3)
    await turns()
    house.door.give_up_waiting()
    for each in (waiting, house.comes(3)):
        with pytest.raises(Unavailable, match="is stopping: nothing was taken"):
            await asyncio.wait_for(each, 5)
    await asyncio.wait_for(house.comes(2), 5)
    assert (house.inside, house.door.waiting) == ([2], 0)
