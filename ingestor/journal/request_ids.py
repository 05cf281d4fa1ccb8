"""Which requests were seen before, by their request_id: those that wait in this journal, those that were committed
lately, and, by asking the database, those of the last hours.

It exists to answer a repetition as the first was answered. That nothing is stored twice does not depend on it: the
commit decides, so whatever can't be known here (a database that does not answer, more requests than are remembered)
is let through.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from loguru import logger

from ingestor.errors import Conflict, StorageError
from ingestor.journal.receipts import Receipt
from ingestor.model import Ack, DeadRow, Request, RequestKey, StoredRequest

Lookup = Callable[[Sequence[RequestKey]], Awaitable[Mapping[RequestKey, StoredRequest]]]
"""Asks the database for requests. Raises StorageError when it can't tell."""

# Some 500 bytes each. Beyond, a repetition is not recognised before its commit.
HELD_MAX = 100_000
_RECENT_MAX = 50_000
_ASKED_AT_ONCE_MAX = 1_000
_ANSWER_S_MAX = 2.0


class Earlier:
    """A request that was seen before. `urge` makes its journal hurry."""

    def __init__(self, request: Request, receipt: Receipt, urge: Callable[[], object]) -> None:
        self.request = request
        self._receipt = receipt
        self._urge = urge

    async def reached(self, ack: Ack) -> Sequence[DeadRow]:
        """As `Receipt.reached`."""
        if ack is Ack.COMMITTED:
            self._urge()
        return await self._receipt.reached(ack)


class RequestIds:
    """All of it on one event loop. `lookup` may be given later; without it the database is not asked."""

    def __init__(self, lookup: Lookup | None = None) -> None:
        self.lookup = lookup
        self._held: dict[RequestKey, Earlier] = {}
        self._recent: OrderedDict[RequestKey, StoredRequest] = OrderedDict()
        # Who is on the way in with this name: others of the same name wait for what becomes of it.
        self._claims: dict[RequestKey, asyncio.Future[None]] = {}
        self._asking: dict[RequestKey, asyncio.Future[StoredRequest | None]] = {}
        self._asker: asyncio.Task[None] | None = None

    async def find(self, request: Request) -> Earlier | None:
        """What this request was when it was first seen. None when it is new: then its name is claimed until
        `release`. Raises Conflict when the first one asked for something else."""
        while (claim := self._claims.get(request.key)) is not None:
            await asyncio.wait([claim])
        if (known := self._known(request.key)) is None:
            claim = self._claims[request.key] = asyncio.get_running_loop().create_future()
            try:
                known = await self._ask(request.key)
            except BaseException:
                self.release(request)
                raise
            if known is None:
                return None
            self.release(request)
        if known.request.fingerprint != request.fingerprint:
            msg = f"request_id {request.id!r} was used before, for a request that asked for something else"
            raise Conflict(msg)
        return known

    def release(self, request: Request) -> None:
        """The request was taken, or refused."""
        claim = self._claims.pop(request.key, None)
        if claim is not None:
            claim.set_result(None)

    def hold(self, request: Request, receipt: Receipt, urge: Callable[[], object]) -> None:
        """It waits in a journal, which `urge` makes hurry; who comes with its name from here on is told of it."""
        self.release(request)
        if len(self._held) < HELD_MAX:
            self._held[request.key] = Earlier(request, receipt, urge)

    def drop(self, request: Request) -> None:
        """The journal could not keep it."""
        self._held.pop(request.key, None)

    def committed(self, request: Request, dead: tuple[DeadRow, ...]) -> None:
        """It is in the database."""
        self._held.pop(request.key, None)
        self._recent[request.key] = StoredRequest(request, dead)
        if len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)

    def forget_recent(self) -> None:
        """What was committed may not be any more: the database is not where it was."""
        self._recent.clear()

    def _known(self, key: RequestKey) -> Earlier | None:
        if (held := self._held.get(key)) is not None:
            return held
        return None if (stored := self._recent.get(key)) is None else _earlier(stored)

    async def _ask(self, key: RequestKey) -> Earlier | None:
        """Asks the database, for all who want to know at a time in one go."""
        if self.lookup is None:
            return None
        answer = self._asking[key] = asyncio.get_running_loop().create_future()
        if self._asker is None:
            self._asker = asyncio.create_task(self._answer(self.lookup), name="request-ids")
        stored = await answer
        return None if stored is None else _earlier(stored)

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
                    if not answer.done():
                        answer.set_result(found.get(key))
        finally:
            self._asker = None
            for answer in self._asking.values():
                answer.cancel()


def _earlier(stored: StoredRequest) -> Earlier:
    receipt = Receipt()
    receipt.advance(Ack.COMMITTED, stored.dead)
    return Earlier(stored.request, receipt, _no_need)


def _no_need() -> None:
    """It is committed."""
