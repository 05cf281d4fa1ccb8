"""grpc.health.v1: whether this server can do its work, for those who balance calls over several.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md. What is true is asked of `serving`; one poll of
it, which runs while somebody watches, tells all watchers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing

from grpclib.health.v1.health_pb2 import DESCRIPTOR, HealthCheckRequest, HealthCheckResponse
from loguru import logger

from ingestor.errors import NotFound, Overloaded, Unavailable
from ingestor.transport.rpc import Rpc, bind_plain

SERVICE = DESCRIPTOR.services_by_name["Health"]

_RETRY_AFTER_S = 1.0
# How long the end of a server waits for watchers to hear of it: those that read do so at once.
_LAST_WORD_S = 0.5


class HealthService:
    """Answers for the whole server (the name "") and for each of `services`, which are one as the other. `rpcs` are
    to be served; `close` before the server is drained."""

    def __init__(
        self,
        serving: Callable[[], Awaitable[bool]],
        services: Iterable[str],
        *,
        poll_interval_s: float = 1.0,
        watchers_max: int = 1_000,
    ) -> None:
        self._serving = serving
        self._names = frozenset(("", *services))
        self._poll_interval_s = poll_interval_s
        self._watchers_max = watchers_max
        self._watchers = 0
        self._closed = False
        self._latest = False
        self._poll: asyncio.Task[None] | None = None
        # Set and replaced whenever there is something to tell.
        self._news = asyncio.Event()

    def rpcs(self) -> list[Rpc]:
        """Check and Watch."""
        return bind_plain(SERVICE, self)

    async def check(self, request: HealthCheckRequest) -> HealthCheckResponse:
        """The state at this moment. Raises NotFound for an unknown name."""
        if request.service not in self._names:
            msg = f"there is no service {request.service}"
            raise NotFound(msg)
        return _answer(serving=await self._look())

    async def watch(self, request: HealthCheckRequest) -> AsyncGenerator[HealthCheckResponse, None]:
        """The state now and whenever it changes; who reads slowly misses what is over by then. Raises Overloaded
        for one watcher too many, and Unavailable at the server's end, of which NOT_SERVING tells first."""
        if self._watchers >= self._watchers_max:
            msg = f"{self._watchers} calls of Watch are open already"
            raise Overloaded(msg, _RETRY_AFTER_S)
        self._watchers += 1
        try:
            if request.service not in self._names:
                yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
                await self._until_closed()
            else:
                async with aclosing(self._changes()) as changes:
                    async for serving in changes:
                        yield _answer(serving=serving)
        finally:
            self._watchers -= 1
            if self._closed:
                self._wake()
            if not self._watchers and self._poll is not None:
                self._poll.cancel()
                self._poll = None
        msg = "the server is stopping"
        raise Unavailable(msg, _RETRY_AFTER_S)

    async def close(self) -> None:
        """Tells every watcher that this server serves no more, and returns when they know, or soon."""
        self._closed = True
        self._tell(serving=False)
        try:
            async with asyncio.timeout(_LAST_WORD_S):
                while self._watchers:
                    await self._hear()
        except TimeoutError:
            pass

    async def _changes(self) -> AsyncGenerator[bool, None]:
        if self._poll is None:
            self._latest = await self._look()
        if self._poll is None:  # another may have been as fast
            self._poll = asyncio.create_task(self._keep_looking(), name="health-poll")
        told: bool | None = None
        while True:
            if told is not self._latest:
                told = self._latest
                yield told
            elif self._closed:
                return
            else:
                await self._hear()

    async def _until_closed(self) -> None:
        while not self._closed:
            await self._hear()

    async def _keep_looking(self) -> None:
        while not self._closed:
            await asyncio.sleep(self._poll_interval_s)
            self._tell(serving=await self._look())

    async def _look(self) -> bool:
        try:
            return not self._closed and await self._serving()
        except Exception as error:  # noqa: BLE001 - a server that can't tell is not one to send calls to
            logger.opt(exception=error).error("a health check failed in a way not foreseen")
            return False

    def _tell(self, *, serving: bool) -> None:
        self._latest = serving and not self._closed
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _hear(self) -> None:
        await self._news.wait()


def _answer(*, serving: bool) -> HealthCheckResponse:
    return HealthCheckResponse(
        status=HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
    )
