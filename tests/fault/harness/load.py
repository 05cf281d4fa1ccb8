"""Many clients that send requests of all kinds at once, and repeat those with a request_id until they are answered.

They write down in the ledger what they see, and nothing stops them but being told to.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from ingestor.model.delivery import Ack
from ingestor.storage.faults import FAILURES
from tests.fault.harness.callers import Address, Caller, GrpcCaller, HttpCaller
from tests.fault.harness.ledger import Fate, Ledger, Page
from tests.fault.harness.requests import Mix, Protocol, Request, encoded
from tests.fault.harness.rows import Times

_READ_BACK = 0.03
# A client whose gateway is gone asks again so often.
_AGAIN_S = 0.05
_STORED = "SELECT count(*) FROM metrics WHERE value = $1 AND time BETWEEN $2 AND $3"


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway's two addresses."""

    grpc: Address
    http: Address

    def caller(self, protocol: Protocol) -> Caller:
        """A new connection."""
        return GrpcCaller(self.grpc) if protocol == "grpc" else HttpCaller(self.http)


@dataclass
class Load:
    """`clients` spread over the targets; each rests `pause_s` between requests. `read_from` is a database in which
    some of what was answered as committed is looked for at once."""

    targets: Sequence[Target]
    mix: Mix
    seed: str
    clients: int = 10
    pause_s: float = 0.01
    timeout_s: float = 20.0
    read_from: str = ""

    def __post_init__(self) -> None:
        self.ledger = Ledger()
        self.times = Times(int(time.time() - 60) * 1_000_000)
        self.retries = 0
        self.read_back = 0
        self._stopping = False
        self._ends_s = float("inf")
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self, answered_within_s: float = 30.0) -> AsyncIterator[None]:
        """Sends while the block runs; behind it no new requests, and those with an id get their answers."""
        self._stopping, self._ends_s = False, float("inf")
        began = len(self.ledger.pages)
        self._tasks = [asyncio.create_task(self._client(number, began)) for number in range(self.clients)]
        try:
            yield
        finally:
            self._stopping = True
            self._ends_s = time.monotonic() + answered_within_s
            await asyncio.gather(*self._tasks)

    async def until_rows(self, more: int, within_s: float = 30.0) -> None:
        """Waits until so many more rows have been answered."""
        wanted = self.ledger.acknowledged_rows + more
        async with asyncio.timeout(within_s):
            while self.ledger.acknowledged_rows < wanted:
                await asyncio.sleep(0.02)

    async def _client(self, number: int, began: int) -> None:
        chance = random.Random(f"{self.seed}/{number}/{began}")
        protocol: Protocol = "http" if number % 3 == 0 else "grpc"
        caller = self.targets[number % len(self.targets)].caller(protocol)
        sent = 0
        try:
            while not self._stopping:
                sent += 1
                request_id = f"{self.seed}/{began}/{number}/{sent}"
                page = self.ledger.open(self.mix.request(chance, protocol, self.ledger.rows, request_id))
                await self._send(caller, page)
                committed = page.fate is Fate.TAKEN and page.request.ack is Ack.COMMITTED
                if committed and self.read_from and chance.random() < _READ_BACK:
                    await self._look_for(page)
                await asyncio.sleep(self.pause_s if page.fate is Fate.TAKEN else _AGAIN_S)
        finally:
            await caller.close()

    async def _send(self, caller: Caller, page: Page) -> None:
        """Until it is answered, if it has an id; else once."""
        body = encoded(page.request, self.times)
        while True:
            self.ledger.note(page, await caller.send(page.request, body, self.timeout_s))
            over = not page.request.request_id or time.monotonic() > self._ends_s
            if page.fate is not Fate.UNANSWERED or over:
                return
            self.retries += 1
            await asyncio.sleep(_AGAIN_S)

    async def _look_for(self, page: Page) -> None:
        """What was answered as committed can be read. (A database that is gone again is no complaint.)"""
        row = _some_row(page.request)
        if row is None:
            return
        moments = self.times.around(row, timed=page.request.timed)
        try:
            connection = await asyncpg.connect(self.read_from, timeout=5)
            try:
                count = await connection.fetchval(_STORED, float(row), *moments)
            finally:
                await connection.close(timeout=5)
        except FAILURES:
            return
        self.read_back += 1
        if count != 1:
            self.ledger.complaints.append(f"{page.request}: committed, and row {row} is there {count} times")


def _some_row(request: Request) -> int | None:
    good = (i for i in range(request.size) if i not in request.spoiled and i not in request.poison)
    index = next(good, None)
    return None if index is None else request.first + index
