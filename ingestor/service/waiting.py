"""How long a request waits: a call for its acknowledgement, a stream for its key's rate and for room as well.

A stream is pushed back where a call is refused. It waits for nothing without a bound, be it of time or of what all
have in hand meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Protocol

from ingestor.caller import CALLER
from ingestor.deadline import CALLER_SAYS
from ingestor.errors import Overloaded, TooLate
from ingestor.model import Ack, DeadRow, MetricBatch, Request
from ingestor.service.in_hand import InHand
from ingestor.service.pacing import Pacing

# A stream that finds no room comes back so soon: the queue's own wait for it lies between.
_ROOM_RETRY_S = 0.1


class Queue(Protocol):
    """Where accepted metrics go, and what it can promise. `offer` returns once it has them as safe as `ack`
    says, with the rows that the database refused; it raises Refusal when it took nothing."""

    @property
    def levels(self) -> frozenset[Ack]: ...
    async def offer(
        self, batch: MetricBatch, ack: Ack, request: Request | None = None
    ) -> Sequence[DeadRow]: ...


class Waiting:
    """A commit is waited for `commit_wait_max_s` seconds at most, unless the caller has said how long."""

    def __init__(self, queue: Queue, commit_wait_max_s: float) -> None:
        self._queue = queue
        self._commit_wait_max_s = commit_wait_max_s
        # A bound for each: else those who wait for one slow key would leave nobody a place to wait for room.
        self._pacing = Pacing(InHand())
        self._in_hand = InHand()

    def hurry(self) -> None:
        """The server stops: streams don't wait for their keys any more."""
        self._pacing.close()

    async def key_allows(self, rows: int, size_bytes: int) -> None:
        """Waits until the caller's key allows a stream so many rows, which is so many bytes. Raises TooFast,
        Unauthenticated, Overloaded or Unavailable."""
        await self._pacing.spend(CALLER.get(), rows, size_bytes)

    def offered(self, batch: MetricBatch, ack: Ack, request: Request | None) -> Awaitable[Sequence[DeadRow]]:
        """A call's metrics, for which there is room within the admission wait, or never. Raises TooLate, and what
        the queue raises."""
        offering = self._queue.offer(batch, ack, request)
        return self.in_time(offering, ack) if ack is Ack.COMMITTED else offering  # one coroutine less a call

    async def room_found(self, batch: MetricBatch, ack: Ack, request: Request | None) -> Sequence[DeadRow]:
        """A stream's metrics, likewise, for which it waits however long, unless too much waits so already: then it
        raises Overloaded."""
        try:
            return await self.offered(batch, ack, request)
        except Overloaded:
            pass
        with self._in_hand.held(batch.size_bytes):
            while True:
                await asyncio.sleep(_ROOM_RETRY_S)
                try:
                    return await self.offered(batch, ack, request)
                except Overloaded:
                    continue

    async def in_time(self, waiting: Awaitable[Sequence[DeadRow]], ack: Ack) -> Sequence[DeadRow]:
        """Waits for this acknowledgement, for a commit no longer than is promised. Raises TooLate."""
        if ack is not Ack.COMMITTED or CALLER_SAYS.get():
            return await waiting
        try:
            async with asyncio.timeout(self._commit_wait_max_s):
                return await waiting
        except TimeoutError:
            msg = (
                f"not committed within {self._commit_wait_max_s:g} s (COMMIT_WAIT_MAX), but it may still be:"
                " to be sure, send the same request with the same request_id again"
            )
            raise TooLate(msg) from None
