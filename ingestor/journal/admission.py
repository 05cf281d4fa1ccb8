"""The door of a journal: who may come in now, who waits for room, and who is refused.

It counts nothing of what is inside; whether a batch has room, and taking it, are its owner's. It never lets anybody
overtake who waits: a large request is not starved by small ones that would still fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ingestor.errors import UNTAKEN, Invalid, Refusal, Unavailable

# What a refused caller is told: by then a flush or two have made room, if the database takes them at all.
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """`rows` and `bytes` bound what waits in memory or is in flight, `waiting_bytes` those who still wait for room;
    `admission_wait_s` is how long they do (0: not at all)."""

    rows: int
    bytes: int
    waiting_bytes: int
    admission_wait_s: float

    def check(self, rows: int, size_bytes: int) -> None:
        """Raises Invalid for what could never fit."""
        if rows > self.rows or size_bytes > self.bytes:
            msg = (
                f"{rows} metrics of {size_bytes} bytes are more than the whole queue holds"
                f" ({self.rows} metrics, {self.bytes} bytes): send smaller batches"
            )
            raise Invalid(msg)


class Guest(Protocol):
    """What wants to come in."""

    @property
    def size_bytes(self) -> int: ...


GuestT = TypeVar("GuestT", bound=Guest)


class Admission(Generic[GuestT]):
    """`has_room` says whether a guest fits now, `take` takes it, `refusal` is the error for whom there is no room.
    `on_pressure` is called whenever somebody begins to wait or is refused."""

    def __init__(
        self,
        limits: QueueLimits,
        has_room: Callable[[GuestT], bool],
        take: Callable[[GuestT], None],
        refusal: Callable[[], Refusal],
        on_pressure: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._has_room = has_room
        self._take = take
        self._refusal = refusal
        self._on_pressure = on_pressure
        # First come first; a dict, so that one who gives up leaves at no cost.
        self._waiters: dict[asyncio.Future[None], GuestT] = {}
        self._waiters_bytes = 0
        self._refused = self._hasty = False
        self.closed = False

    @property
    def waiting(self) -> int:
        """Those who wait for room."""
        return len(self._waiters)

    @property
    def pressed(self) -> bool:
        """Whether somebody waits for room, or was refused since room was last made."""
        return bool(self._waiters) or self._refused

    async def enter(self, guest: GuestT) -> None:
        """Returns once the guest is taken. Raises the refusal when there was no room in time, Unavailable after
        `close`; then it was not. Cancelled while it waits, it is not taken, unless room came in the same moment."""
        if self.closed:
            raise closing()
        if not self._waiters and self._has_room(guest):
            self._take(guest)
        else:
            await self._wait_for_room(guest)

    def room_made(self) -> None:
        """Lets in whom there is room for now."""
        self._refused = False
        self._admit()

    def give_up_waiting(self) -> None:
        """The server stops: who waits for room, or would have to, is refused."""
        self._hasty = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(closing())

    def close(self) -> None:
        """Refuses everybody from now on, also those that wait."""
        self.closed = True
        self.give_up_waiting()

    async def _wait_for_room(self, guest: GuestT) -> None:
        wait_s = self._limits.admission_wait_s
        if self._hasty:
            raise closing()
        if wait_s <= 0 or self._waiters_bytes + guest.size_bytes > self._limits.waiting_bytes:
            raise self._refuse()
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[None] = loop.create_future()
        self._waiters[admitted] = guest
        self._waiters_bytes += guest.size_bytes
        self._on_pressure()
        timer = loop.call_later(wait_s, self._give_up, admitted)
        try:
            await admitted
        except asyncio.CancelledError as error:
            if admitted in self._waiters:
                error.args = (UNTAKEN,)
            raise
        finally:
            timer.cancel()
            if self._leave(admitted):
                self._admit()  # whom this one was blocking

    def _give_up(self, admitted: asyncio.Future[None]) -> None:
        if not admitted.done():
            admitted.set_exception(self._refuse())

    def _refuse(self) -> Refusal:
        self._refused = True
        self._on_pressure()
        return self._refusal()

    def _leave(self, admitted: asyncio.Future[None]) -> bool:
        guest = self._waiters.pop(admitted, None)
        if guest is None:
            return False
        self._waiters_bytes -= guest.size_bytes
        return True

    def _admit(self) -> None:
        while self._waiters:
            admitted, guest = next(iter(self._waiters.items()))
            if not admitted.done():
                if not self._has_room(guest):
                    return
                admitted.set_result(None)
                self._take(guest)
            self._leave(admitted)


def closing() -> Unavailable:
    """What is told when the server stops."""
    return Unavailable("the server is stopping: nothing was taken", RETRY_AFTER_S)
