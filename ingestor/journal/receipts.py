"""What became of one request's rows, for those who wait to hear of it: a journal is told, and tells.

A receipt holds no rows. Only requests that wait, or may be asked about again, have one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from ingestor.errors import Refusal
from ingestor.model import Ack, DeadRow, MetricBatch, Request


class Offer(NamedTuple):
    """A request on its way into a journal: its rows, what it waits for, its name if it has one, where its fate is
    told if anybody asks, and when it came (monotonic seconds)."""

    batch: MetricBatch
    ack: Ack
    request: Request | None
    receipt: Receipt | None
    came_at_s: float

    @property
    def size_bytes(self) -> int:
        """The memory that it takes while it waits."""
        return self.batch.size_bytes


class Receipt:
    """The fate of one request. All on one event loop."""

    __slots__ = ("_abandoned", "_dead", "_error", "_level", "_waiters", "awaited")

    def __init__(self, *, awaited: bool = False) -> None:
        """`awaited` says whether somebody waits for the commit, or is about to."""
        self.awaited = awaited
        self._level = Ack.QUEUED
        self._dead: tuple[DeadRow, ...] = ()
        self._error: Refusal | None = None
        self._abandoned: Refusal | None = None
        self._waiters: list[tuple[Ack, asyncio.Future[None]]] = []

    async def reached(self, ack: Ack) -> Sequence[DeadRow]:
        """Returns when this level is reached; with COMMITTED the rows that the database refused, counted from the
        request's first. Raises Refusal when the journal could not keep the rows, and TooLate when the server stops
        first, and may well keep them."""
        if self._error is None and self._abandoned is None and self._level < ack:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((ack, waiter))
            self.awaited = self.awaited or ack is Ack.COMMITTED
            try:
                await waiter
            finally:
                if waiter.cancelled():
                    self._waiters = [each for each in self._waiters if each[1] is not waiter]
                    self.awaited = any(level is Ack.COMMITTED for level, _ in self._waiters)
        # All who wait are told by one object, which would gather their tracebacks.
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._abandoned is not None and self._level < ack:
            raise self._abandoned.with_traceback(None)
        return self._dead if ack is Ack.COMMITTED else ()

    def advance(self, level: Ack, dead: tuple[DeadRow, ...] = ()) -> None:
        """The rows have come so far."""
        self._level, self._dead = level, dead
        if self._waiters:
            self._wake(level)

    def fail(self, error: Refusal) -> None:
        """The rows were not taken after all."""
        self._error = error
        self._wake(Ack.COMMITTED)

    def abandon(self, refusal: Refusal) -> None:
        """Nobody will hear of a level that is not reached; what is reached stays so."""
        self._abandoned = refusal
        self._wake(Ack.COMMITTED)

    def _wake(self, level: Ack) -> None:
        waiters, self._waiters = self._waiters, []
        for each in waiters:
            ack, waiter = each
            if ack > level:
                self._waiters.append(each)
            elif not waiter.done():
                waiter.set_result(None)
