"""Hands what was checked to the queue, whole or not at all, and once for each name; says what became of it.

It counts what it refuses. It knows rows, not messages: what is wrong with one was found before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence, Sized
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

from ingestor_api.analytics.v1 import RejectedMetric

from ingestor.caller import CALLER
from ingestor.errors import UNTAKEN, Conflict, Invalid, Later, TooFast
from ingestor.model import Ack, DeadRow, MetricBatch, Request
from ingestor.model.columns import Checked, Sifted
from ingestor.model.series_bound import Claim
from ingestor.service.answers import decoded, encoded, nothing_right, told, with_dead
from ingestor.service.rejections import kept
from ingestor.service.series_guard import SeriesGuard
from ingestor.service.slices import Slices, listed
from ingestor.service.terms import Call
from ingestor.service.waiting import Waiting
from ingestor.telemetry import Telemetry

# What is kept of so many takes a millisecond to be packed.
_INLINE_REJECTIONS_MAX = 1_000

ResultT = TypeVar("ResultT")
SizedT = TypeVar("SizedT", bound=Sized)


class Earlier(Protocol):
    """A request that was seen before: what it was, and what becomes of it."""

    @property
    def request(self) -> Request: ...
    async def reached(self, ack: Ack) -> Sequence[DeadRow]: ...


class Requests(Protocol):
    """Which requests were seen before. `find` claims the name of one that was not, until `release`; it raises
    Conflict for one that asks for something else than the first of its name did."""

    async def find(self, request: Request) -> Earlier | None: ...
    def release(self, request: Request) -> None: ...


class Taking:
    """One for all rpcs that write."""

    def __init__(
        self, requests: Requests, waiting: Waiting, series: SeriesGuard, telemetry: Telemetry
    ) -> None:
        self._requests = requests
        self._waiting = waiting
        self._series = series
        self._telemetry = telemetry
        self._slices = Slices()

    async def bulk(
        self, call: Call, check: Callable[[], Awaitable[Sifted]], list_name: str
    ) -> tuple[int, Sequence[RejectedMetric]]:
        """Takes what is good of a request's `list_name`, unless that was done before; how many that were, and the
        others with their reasons. Raises Refusal."""
        if call.waits_for_room:
            await self._waiting.key_allows(call.rows, call.size_bytes)
        else:
            CALLER.get().spend(call.rows)
        if call.request is None:
            return await self._taken(call, await check(), list_name)
        async with self.once(call.request, call.rows) as earlier:
            if earlier is None:
                return await self._taken(call, await check(), list_name)
            dead = await self.reached(earlier, call.ack)
            rejected = await _aside_if_many(decoded, earlier.request.rejected)
            return earlier.request.accepted - len(dead), with_dead(rejected, dead, call.rows)

    @asynccontextmanager
    async def once(self, request: Request, rows: int) -> AsyncIterator[Earlier | None]:
        """What was taken under this name before; None when this is the first, for which the name is kept. Raises
        Conflict."""
        try:
            earlier = await self._requests.find(request)
        except Conflict:
            self._telemetry.count_rejected(rows)
            raise
        if earlier is not None:
            self._telemetry.received.inc(rows)
            self._telemetry.duplicates.inc(rows)
        try:
            yield earlier
        finally:
            if earlier is None:
                self._requests.release(request)

    def reached(self, earlier: Earlier, ack: Ack) -> Awaitable[Sequence[DeadRow]]:
        """Until a request that was taken before is as safe as this one asks for. Raises TooLate."""
        return self._waiting.in_time(earlier.reached(ack), ack)

    def claim(self, batch: MetricBatch) -> Claim | None:
        """What one metric takes of its caller's bound of series. Raises TooFast."""
        return self._bounded(Checked(batch, []))[1] if self._series.watches else None

    async def offer(
        self,
        batch: MetricBatch,
        claim: Claim | None,
        ack: Ack,
        request: Request | None = None,
        *,
        until_taken: bool = False,
    ) -> Sequence[DeadRow]:
        """The rows that the database refused, as far as that was waited for. Raises Refusal; but for TooLate
        nothing was taken then, and the claim is given back; as it is when the call is given up while it waits for
        room."""
        offered = self._waiting.room_found if until_taken else self._waiting.offered
        try:
            return await offered(batch, ack, request)
        except Later:
            self._telemetry.refused.inc(batch.rows)
            self._series.give_back(claim)
            raise
        except Invalid:
            self._telemetry.count_rejected(batch.rows)
            self._series.give_back(claim)
            raise
        except asyncio.CancelledError as error:
            if error.args == (UNTAKEN,):
                self._series.give_back(claim)
            raise

    async def _taken(
        self, call: Call, sifted: Sifted, list_name: str
    ) -> tuple[int, Sequence[RejectedMetric]]:
        batch, claim, rejected = await self._told(sifted, list_name)
        del sifted
        accepted, request = batch.rows, call.request
        if request is not None:
            with self._unless_ended(claim):
                packed = await _aside_if_many(encoded, rejected)
            request = request._replace(accepted=accepted, rejected=packed)
        dead = await self.offer(batch, claim, call.ack, request, until_taken=call.waits_for_room)
        self._telemetry.count_rejected(len(rejected))
        return accepted - len(dead), with_dead(rejected, dead, call.rows)

    async def _told(
        self, sifted: Sifted, list_name: str
    ) -> tuple[MetricBatch, Claim | None, Sequence[RejectedMetric]]:
        if sifted.batch is None:
            self._telemetry.count_rejected(sifted.bad)
            raise nothing_right(sifted.explained, sifted.bad, list_name)
        if not sifted.bad and not self._series.watches:
            return sifted.batch, None, []
        async with self._slices.place(sifted.bad):
            if not self._series.watches:
                return sifted.batch, None, await kept(told(sifted.explained), sifted.bad)
            checked, claim = self._bounded(Checked(sifted.batch, await listed(sifted.explained)))
            rejected = checked.rejected
            if checked.batch is None:
                self._telemetry.count_rejected(len(rejected))
                raise nothing_right(rejected, len(rejected), list_name)
            with self._unless_ended(claim):
                return checked.batch, claim, await kept(told(rejected), len(rejected))

    @contextmanager
    def _unless_ended(self, claim: Claim | None) -> Iterator[None]:
        """Around what is waited for before the offer: a call that ends there has taken nothing of the bound."""
        try:
            yield
        except BaseException:  # cancelled, too; it is raised again
            self._series.give_back(claim)
            raise

    def _bounded(self, checked: Checked) -> tuple[Checked, Claim | None]:
        """Without rows of too many series, and what new ones took of the bound. Raises TooFast when there are no
        others."""
        try:
            return self._series.within(checked)
        except TooFast:
            self._telemetry.count_rejected(0 if checked.batch is None else checked.batch.rows)
            raise


async def _aside_if_many(work: Callable[[SizedT], ResultT], items: SizedT) -> ResultT:
    """`work(items)`, in a thread when there are many of them."""
    if len(items) > _INLINE_REJECTIONS_MAX:
        return await asyncio.to_thread(work, items)
    return work(items)
