"""A TCP proxy that does to connections what networks and dying machines do: cuts, stalls, slows, swallows answers.

It never changes a byte: what it passes on is what was sent, up to where it stops.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto

from tests.fault.harness.frontend import COPY_DATA, Frontend, Part

_READ_BYTES = 65_536
# How long a server is given for an answer that nobody will hear.
_ANSWER_S_MAX = 10.0


class Verdict(Enum):
    """What happens to a message."""

    PASS = auto()
    # It does not arrive.
    CUT_BEFORE = auto()
    # It arrives, and nobody waits for the answer.
    CUT_BEHIND = auto()
    # It arrives and is answered, and the answer is lost.
    LOSE_ANSWER = auto()
    # It arrives, and the connection stays open without an answer.
    SWALLOW = auto()


class Strike:
    """A fault that happens once, at a message; `struck` says that it did."""

    def __init__(self, verdict: Verdict, at: Callable[[Part], bool]) -> None:
        self.struck = asyncio.Event()
        self._verdict = verdict
        self._at = at

    def judge(self, part: Part) -> Verdict:
        """What happens to this message."""
        if self.struck.is_set() or not self._at(part):
            return Verdict.PASS
        self.struck.set()
        return self._verdict


def at_commit(verdict: Verdict) -> Strike:
    """At the next COMMIT."""
    return Strike(verdict, lambda part: part.commits)


def in_copy(verdict: Verdict, after_bytes: int) -> Strike:
    """After so many bytes of copied rows."""
    seen = 0

    def reached(part: Part) -> bool:
        nonlocal seen
        seen += len(part.data) if part.kind == COPY_DATA else 0
        return seen > after_bytes

    return Strike(verdict, reached)


class WireProxy:
    """Connections to `upstream`, which may move. `flowing` cleared stops all bytes, new connections included;
    `answers_lost` is the share of answers (pieces of what the server sends) at which a connection is cut."""

    def __init__(self, upstream: tuple[str, int], *, postgresql: bool = True) -> None:
        self.upstream = upstream
        self.port = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.strike: Strike | None = None
        self.latency_s = 0.0
        self.bytes_per_s: float | None = None
        self.answers_lost = 0.0
        self.cuts = 0
        self.chance = random.Random()
        self._postgresql = postgresql
        self._links: set[_Link] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    def arm(self, strike: Strike) -> Strike:
        """Makes this the next fault, in place of an earlier one that did not happen."""
        self.strike = strike
        return strike

    def cut(self) -> None:
        """Cuts all connections."""
        for link in list(self._links):
            link.cut()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        link = _Link(self, writer, Frontend() if self._postgresql else None)
        self._links.add(link)
        try:
            await link.run(reader)
        finally:
            self._links.discard(link)

    async def end(self) -> None:
        """Cuts all and waits for it."""
        while self._links:
            self.cut()
            await asyncio.sleep(0.01)


class _Link:
    """One connection and its other half."""

    def __init__(self, proxy: WireProxy, client: asyncio.StreamWriter, frontend: Frontend | None) -> None:
        self._proxy = proxy
        self._client = client
        self._frontend = frontend
        self._swallowing = False
        self._answered = asyncio.Event()
        self._over = asyncio.Event()

    def cut(self) -> None:
        """Ends it without a goodbye."""
        if not self._over.is_set():
            self._proxy.cuts += 1
            self._over.set()

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Passes bytes on until an end closes, or it is cut."""
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(self._over.wait())]
        server: asyncio.StreamWriter | None = None
        try:
            await self._proxy.flowing.wait()
            answers, server = await asyncio.open_connection(*self._proxy.upstream)
            tasks.append(asyncio.create_task(self._requests(reader, server)))
            tasks.append(asyncio.create_task(self._answers(answers)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # nobody listens there
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in (self._client, server):
                if writer is not None:
                    writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                for part in [Part(b"", data)] if self._frontend is None else self._frontend.feed(data):
                    strike = self._proxy.strike
                    verdict = Verdict.PASS if strike is None else strike.judge(part)
                    if verdict is Verdict.CUT_BEFORE:
                        return self.cut()
                    self._swallowing = self._swallowing or verdict in {Verdict.LOSE_ANSWER, Verdict.SWALLOW}
                    await self._pass(server, part.data)
                    await self._after(verdict)
        return None

    async def _after(self, verdict: Verdict) -> None:
        if verdict is Verdict.CUT_BEHIND:
            self.cut()
        elif verdict is Verdict.LOSE_ANSWER:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), _ANSWER_S_MAX)
            self.cut()

    async def _answers(self, answers: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await answers.read(_READ_BYTES):
                if self._swallowing:
                    self._answered.set()
                elif self._proxy.chance.random() < self._proxy.answers_lost:
                    return self.cut()
                else:
                    await self._pass(self._client, data)
        return None

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        proxy = self._proxy
        if proxy.latency_s or proxy.bytes_per_s:
            await asyncio.sleep(proxy.latency_s + len(data) / (proxy.bytes_per_s or float("inf")))
        await proxy.flowing.wait()
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def wire_proxy(upstream: tuple[str, int], *, postgresql: bool = True) -> AsyncIterator[WireProxy]:
    """A proxy on a free port."""
    proxy = WireProxy(upstream, postgresql=postgresql)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
