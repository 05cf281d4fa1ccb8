"""Load of clients that have more than one gateway to go to, unary and streams, as long as it is told to.

Whatever a client could not get done within its patience is a complaint in the ledger.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ingestor.model.delivery import Ack
from tests.fault.harness.callers import Answer, Caller
from tests.fault.harness.ledger import Fate, Ledger, Page
from tests.fault.harness.load import Target
from tests.fault.harness.requests import Method, Mix, Protocol, encoded
from tests.fault.harness.retrying import GrpcioCaller, GrpcioStream, HttpRetrier, answer_of
from tests.fault.harness.rows import Times

_PAUSE_S = 0.01
_AGAIN_S = 0.05
_PATIENCE_S = 20.0
# What a stream has on its way, unanswered: far less than flow control would hold up.
_WINDOW = 8
_SIZES = (1, 5, 50)


class RetryingLoad:
    """So many clients of each kind. Unary gRPC goes with and without a request_id, the others always with one."""

    def __init__(
        self, gateways: Sequence[Target], seed: str, unary: int = 8, streams: int = 4, http: int = 2
    ) -> None:
        self._grpc, self._web = [each.grpc() for each in gateways], [each.http() for each in gateways]
        self._seed = seed
        self._numbers = {"unary": unary, "stream": streams, "http": http}
        self.ledger = Ledger()
        self.times = Times(int(time.time() - 60) * 1_000_000)
        self.retries = 0
        self.sent_again = 0
        self._stopping = False
        self._mix = Mix((Ack.JOURNALED, Ack.JOURNALED, Ack.COMMITTED), _SIZES, spoiled=0.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends while the block runs; behind it what is on its way gets its answers."""
        clients = {"unary": self._unary, "stream": self._stream, "http": self._http}
        async with asyncio.TaskGroup() as group:
            for kind, number in self._numbers.items():
                for each in range(number):
                    group.create_task(clients[kind](random.Random(f"{self._seed}/{kind}/{each}"), each))
            try:
                yield
            finally:
                self._stopping = True

    def failed(self) -> list[str]:
        """The requests that have no answer after all."""
        return [str(page.request) for page in self.ledger.pages if page.fate is not Fate.TAKEN]

    async def _unary(self, chance: random.Random, number: int) -> None:
        await self._calls(GrpcioCaller(self._grpc), chance, "grpc", with_id=bool(number % 2))

    async def _http(self, chance: random.Random, number: int) -> None:
        caller = HttpRetrier(self._web[::-1] if number % 2 else self._web)
        await self._calls(caller, chance, "http", with_id=True)
        self.retries += caller.retries

    async def _calls(
        self, caller: Caller, chance: random.Random, protocol: Protocol, *, with_id: bool
    ) -> None:
        try:
            while not self._stopping:
                page = self._page(chance, protocol, with_id=with_id)
                body = encoded(page.request, self.times)
                self._note(page, await caller.send(page.request, body, _PATIENCE_S))
                # Without a rest there is nearly always one on its way when a gateway stops.
                if with_id:
                    await asyncio.sleep(_PAUSE_S)
        finally:
            await caller.close()

    async def _stream(self, chance: random.Random, number: int) -> None:
        """Stream after stream, each on the other gateway."""
        unanswered: deque[Page] = deque()
        turn = number
        while not self._stopping or unanswered:
            host, port = self._grpc[turn % len(self._grpc)]
            stream = GrpcioStream(f"{host}:{port}")
            try:
                await self._one_stream(stream, chance, unanswered)
            finally:
                ended = await stream.close()
            if ended.code == "OK" and not unanswered:
                return
            if ended.code != "UNAVAILABLE":
                self.ledger.complaints.append(f"a stream ended with {ended}")
                return
            for page in unanswered:
                page.attempts += 1
                page.unanswered += 1
            self.sent_again += len(unanswered)
            turn += 1
            await asyncio.sleep(_AGAIN_S)

    async def _one_stream(self, stream: GrpcioStream, chance: random.Random, unanswered: deque[Page]) -> None:
        """To its end, whichever. What the one before it left is sent again first."""
        for page in unanswered:
            stream.write(encoded(page.request, self.times))
        while unanswered or not self._stopping:
            while len(unanswered) < _WINDOW and not self._stopping:
                unanswered.append(self._page(chance, "grpc", with_id=True, method=Method.LOG_METRICS))
                stream.write(encoded(unanswered[-1].request, self.times))
            content = await stream.read()
            if content is None:
                return
            page = unanswered.popleft()
            self._note(page, answer_of(page.request.method, content))
            await asyncio.sleep(_PAUSE_S)

    def _page(
        self, chance: random.Random, protocol: Protocol, *, with_id: bool, method: Method | None = None
    ) -> Page:
        first = self.ledger.rows
        request = self._mix.request(chance, protocol, first, "")
        request.method = method or request.method
        request.request_id = f"{self._seed}/{first}" if with_id else ""
        return self.ledger.open(request)

    def _note(self, page: Page, answer: Answer) -> None:
        self.ledger.note(page, answer)
        if answer.code != "OK":
            self.ledger.complaints.append(f"{page.request} failed for good: {answer.code}: {answer.message}")
