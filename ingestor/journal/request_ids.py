"""Which requests were seen before, by their request_id: those that wait in this journal, those that were committed
lately, and, by asking the database, those of the last hours.

It exists to answer a repetition as the first was answered. That nothing is stored twice does not depend on it: the
commit decides, so whatever can't be known here (a database that does not answer, more requests than are remembered)
is let through.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from loguru import logger

from ingestor.errors import Conflict, StorageError, TooLate, Unavailable
from ingestor.journal.admission import RETRY_AFTER_S
from ingestor.journal.receipts import Receipt
from ingestor.model import Ack, DeadRow, Request, RequestKey, StoredRequest

Lookup = Callable[[Sequence[RequestKey]], Awaitable[Mapping[RequestKey, StoredRequest]]]
"""Asks the database for requests. Raises StorageError when it can't tell."""

# Some 500 bytes each, and what was rejected of them. Beyond, a repetition is not recognised before its commit, or
# costs a question to the database.
HELD_MAX = 100_000
_RECENT_MAX = 50_000
_ANSWERS_BYTES_MAX = 16 * 1024**2
_DEAD_ROW_BYTES = 200
_ASKED_AT_ONCE_MAX = 1_000
_ANSWER_S_MAX = 2.0

_UNTOLD = (
    "it is stored, but the server stopped before the database said what became of its rows: to hear that, send it"
    " again with the same request_id"
)


class Earlier:
    """A request that was seen before. `urge` makes its journal hurry; `least` is what a repetition waits for at any
    rate: before that the first may still come to nothing."""

    def __init__(
        self, request: Request, receipt: Receipt, urge: Callable[[], object], least: Ack = Ack.QUEUED
    ) -> None:
        self.request = request
        self.receipt = receipt
        self._urge = urge
        self._least = least

    async def reached(self, ack: Ack) -> Sequence[DeadRow]:
        """As `Receipt.reached`."""
        if ack is Ack.COMMITTED:
            self._urge()
        return await self.receipt.reached(max(ack, self._least))


class _Claim(NamedTuple):
    """Who is on the way in with a name; `over` once it was taken or refused."""

    request: Request
    over: asyncio.Future[None]


class _Committed(NamedTuple):
    """What was committed, then (monotonic seconds)."""

    stored: StoredRequest
    at_s: float


class RequestIds:
    """All of it on one event loop. `lookup` may be given later; without it the database is not asked. What was
    committed longer ago than `window_s` counts as never seen."""

    def __init__(
        self,
        lookup: Lookup | None = None,
        *,
        window_s: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lookup = lookup
        self._window_s = window_s
        self._clock = clock
        self._held: dict[RequestKey, Earlier] = {}
        self._recent: OrderedDict[RequestKey, _Committed] = OrderedDict()
        self._held_bytes = self._recent_bytes = 0
        # Others of the same name wait for what becomes of it.
        self._claims: dict[RequestKey, _Claim] = {}
        self._asking: dict[RequestKey, asyncio.Future[StoredRequest | None]] = {}
        self._asker: asyncio.Task[None] | None = None
        self._resolving: dict[asyncio.Task[None], Receipt] = {}

    async def find(self, request: Request) -> Earlier | None:
        """What this request was when it was first seen. None when it is new: then its name is claimed until
        `release`. Raises Conflict when the first one asked for something else."""
        while (claim := self._claims.get(request.key)) is not None:
            await asyncio.wait([claim.over])
        if (known := self._known(request.key)) is None:
            over = asyncio.get_running_loop().create_future()
            self._claims[request.key] = _Claim(request, over)
            try:
                stored = await self._ask(request.key)
            except BaseException:  # cancelled, above all: others wait for this name; it is raised again
                self.release(request)
                raise
            if stored is None:
                return None
            self.release(request)
            known = _earlier(stored)
        if known.request.fingerprint != request.fingerprint:
            raise conflict(request)
        return known

    def release(self, request: Request) -> None:
        """The request, the very one that claimed its name, was taken, or refused."""
        claim = self._claims.get(request.key)
        if claim is not None and claim.request is request:
            self._give_up(request.key)

    def hold(self, request: Request, receipt: Receipt, urge: Callable[[], object], least: Ack) -> None:
        """It waits in a journal, which `urge` makes hurry; who comes with its name from here on is told of it, once
        it has come as far as `least`."""
        self._give_up(request.key)
        size_bytes = len(request.rejected)
        if request.key in self._held:
            return  # the first one counts
        if len(self._held) < HELD_MAX and self._held_bytes + size_bytes <= _ANSWERS_BYTES_MAX:
            self._held[request.key] = Earlier(request, receipt, urge, least)
            self._held_bytes += size_bytes

    def holds(self, request: Request, receipt: Receipt) -> bool:
        """Whether repetitions are told by this receipt."""
        held = self._held.get(request.key)
        return held is not None and held.receipt is receipt

    def drop(self, request: Request) -> None:
        """It is not in the journal any more, or won't be: a repetition asks the database."""
        held = self._held.pop(request.key, None)
        if held is not None:
            self._held_bytes -= len(held.request.rejected)

    def committed(self, request: Request, dead: tuple[DeadRow, ...]) -> None:
        """It is in the database, but for those rows."""
        self.drop(request)
        self._forget(request.key)
        stored = StoredRequest(request, dead)
        if _answer_bytes(stored) * 100 > _ANSWERS_BYTES_MAX:
            return  # the database remembers
        self._recent[request.key] = _Committed(stored, self._clock())
        self._recent_bytes += _answer_bytes(stored)
        while len(self._recent) > _RECENT_MAX or self._recent_bytes > _ANSWERS_BYTES_MAX:
            self._forget(next(iter(self._recent)))

    def forget_recent(self) -> None:
        """What was committed may not be any more: the database is not where it was."""
        self._recent.clear()
        self._recent_bytes = 0

    def resolve(self, request: Request, receipt: Receipt) -> None:
        """It was stored without this journal hearing what became of its rows: the database knows. Who waits is told
        then, and who comes later asks by himself."""
        self.drop(request)
        if receipt.awaited:
            task = asyncio.create_task(self._resolve(request, receipt), name="request-id")
            self._resolving[task] = receipt
            task.add_done_callback(self._resolving.pop)

    def give_up_resolving(self) -> None:
        """The server stops: who waits for what the database knows is told so."""
        for receipt in self._resolving.values():
            receipt.abandon(TooLate(_UNTOLD))

    async def _resolve(self, request: Request, receipt: Receipt) -> None:
        stored = await self._ask(request.key)
        if stored is None:
            msg = (
                "it is stored, but the database can't say just now what became of its rows: send it once more"
            )
            receipt.fail(Unavailable(msg, RETRY_AFTER_S))
        elif stored.request.fingerprint != request.fingerprint:
            receipt.fail(conflict(request))
        else:
            receipt.advance(Ack.COMMITTED, stored.dead)

    def _give_up(self, key: RequestKey) -> None:
        claim = self._claims.pop(key, None)
        if claim is not None:
            claim.over.set_result(None)

    def _forget(self, key: RequestKey) -> None:
        known = self._recent.pop(key, None)
        if known is not None:
            self._recent_bytes -= _answer_bytes(known.stored)

    def _known(self, key: RequestKey) -> Earlier | None:
        if (held := self._held.get(key)) is not None:
            return held
        known = self._recent.get(key)
        if known is None or self._clock() - known.at_s > self._window_s:
            return None
        return _earlier(known.stored)

    async def _ask(self, key: RequestKey) -> StoredRequest | None:
        """Asks the database, for all who want to know at a time in one go."""
        if self.lookup is None:
            return None
        answer = self._asking.get(key)
        if answer is None:
            answer = self._asking[key] = asyncio.get_running_loop().create_future()
        if self._asker is None:
            self._asker = asyncio.create_task(self._answer(self.lookup), name="request-ids")
        return await asyncio.shield(answer)

    async def _answer(self, lookup: Lookup) -> None:
        try:
            while self._asking:
                asked = dict(list(self._asking.items())[:_ASKED_AT_ONCE_MAX])
                for key in asked:
                    del self._asking[key]
                found: Mapping[RequestKey, StoredRequest] = {}
                try:
                    async with asyncio.timeout(_ANSWER_S_MAX):
                        found = await lookup(list(asked))
                except (StorageError, TimeoutError):
                    pass  # the commit will tell
                except Exception as error:  # noqa: BLE001 - our own mistake must not leave callers waiting
                    logger.opt(exception=error).error("looking up request ids failed in a way not foreseen")
                for key, answer in asked.items():
                    answer.set_result(found.get(key))
        finally:
            self._asker = None


def conflict(request: Request) -> Conflict:
    """What is told to who uses a name again for something else."""
    return Conflict(f"request_id {request.id!r} was used before, for a request that asked for something else")


def _earlier(stored: StoredRequest) -> Earlier:
    receipt = Receipt()
    receipt.advance(Ack.COMMITTED, stored.dead)
    return Earlier(stored.request, receipt, _no_need)


def _answer_bytes(stored: StoredRequest) -> int:
    """What it takes beside the 500 bytes of any request."""
    return len(stored.request.rejected) + _DEAD_ROW_BYTES * len(stored.dead)


def _no_need() -> None:
    """It is committed."""
