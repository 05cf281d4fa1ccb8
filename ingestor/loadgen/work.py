"""Carries a plan out: paces requests, tries again where the plan allows it, and stops when told to.

It never has more requests outstanding than connections x streams (over HTTP: than connections), and never
repeats a request whose answer was lost, unless requests have names.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from typing import Protocol as Interface

from ingestor.loadgen import backoff
from ingestor.loadgen.answers import INTERRUPTED, Answer, Kind, NotConnected, unanswered
from ingestor.loadgen.brake import Brake
from ingestor.loadgen.plan import LoadPlan, Protocol
from ingestor.loadgen.schedule import Request, Schedule
from ingestor.loadgen.tally import Progress, Tally

# After a gentle stop, how long answers in flight are waited for.
GRACE_S = 5.0
PROGRESS_INTERVAL_S = 0.2


class Client(Interface):
    """One connection."""

    protocol: Protocol

    def encode(self, first: int, size: int) -> bytes: ...
    async def send(self, body: bytes, size: int) -> Answer: ...
    async def close(self) -> None: ...


class Work:
    """The tasks of one run and the clock they share."""

    def __init__(self, plan: LoadPlan, brake: Brake) -> None:
        self.brake = brake
        self.tally = Tally(plan)
        self._plan = plan
        self._schedule = Schedule(plan)
        self.ended_s = 0.0
        self._start_s = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    async def do(self, clients: Sequence[Client], progress: Callable[[Progress], None] | None) -> None:
        """Returns when all requests have ended, or the brake's patience has."""
        workers = [
            asyncio.create_task(self._work(client))
            for client in clients
            for _ in range(self._plan.streams if client.protocol == "grpc" else 1)
        ]
        helpers = [asyncio.create_task(self._patience())]
        if progress is not None:
            helpers.append(asyncio.create_task(self._show(progress)))
        finished: asyncio.Future[Any] = asyncio.gather(*workers)
        try:
            await asyncio.wait((finished, helpers[0]), return_when=asyncio.FIRST_COMPLETED)
            if finished.done():
                finished.result()
        finally:
            for task in (*workers, *helpers):
                task.cancel()
            await asyncio.gather(*workers, *helpers, finished, return_exceptions=True)
            self.ended_s = self.elapsed_s()
        if progress is not None:
            progress(self.tally.progress(self.elapsed_s()))

    async def _patience(self) -> None:
        await self.brake.gentle.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self.brake.hard.wait()

    async def _show(self, progress: Callable[[Progress], None]) -> None:
        while True:
            progress(self.tally.progress(self.elapsed_s()))
            await asyncio.sleep(PROGRESS_INTERVAL_S)

    async def _work(self, client: Client) -> None:
        while not self._over() and (request := self._schedule.take(self.elapsed_s())):
            body = client.encode(request.first, request.size)
            if request.due_s is not None and not await self._pause(request.due_s - self.elapsed_s()):
                return
            due_s = self.elapsed_s() if request.due_s is None else request.due_s
            lag_s = self.elapsed_s() - due_s
            if lag_s > self._plan.timeout_s:
                continue  # whoever asked for it has given up by now: it stays unsent
            self.tally.started(request.size, lag_s)
            if not await self._deliver(client, request, body, due_s):
                return

    async def _deliver(self, client: Client, request: Request, body: bytes, due_s: float) -> bool:
        """False when the request could not be sent at all."""
        answer: Answer | None = unanswered(INTERRUPTED)
        try:
            answer = await self._attempts(client, body, request.size)
        finally:
            if answer is not None:
                self.tally.finished(client.protocol, request, answer, self.elapsed_s() - due_s)
        return answer is not None

    async def _attempts(self, client: Client, body: bytes, size: int) -> Answer | None:
        answer = await self._send(client, body, size)
        unanswered_once: Answer | None = None
        for attempt in range(self._plan.retries):
            if answer is None or not self._worth_repeating(answer):
                break
            if answer.kind is Kind.UNANSWERED:
                unanswered_once = answer
            if not await self._pause(backoff.delay_s(attempt, answer.retry_after_s)):
                break
            self.tally.retried(client.protocol)
            answer = await self._send(client, body, size) or answer
        if answer is not None and answer.kind is Kind.REFUSED and unanswered_once is not None:
            return unanswered_once  # that refusal speaks of the repetition alone
        return answer

    def _worth_repeating(self, answer: Answer) -> bool:
        """Under the same name, what was not answered may be sent again: it is stored once."""
        return answer.retryable or (self._plan.request_ids and answer.kind is Kind.UNANSWERED)

    async def _send(self, client: Client, body: bytes, size: int) -> Answer | None:
        """Sends once, connecting first for as long as the plan allows; None if there was no connection."""
        down_since_s: float | None = None
        for attempt in itertools.count():
            try:
                return await client.send(body, size)
            except NotConnected as error:
                now_s = self.elapsed_s()
                down_since_s = now_s if down_since_s is None else down_since_s
                if now_s - down_since_s >= self._plan.reconnect_s:
                    self.tally.unreachable.setdefault(client.protocol, str(error))
                    return None
                if not await self._pause(backoff.delay_s(attempt)):
                    return None
        return None

    async def _pause(self, seconds: float) -> bool:
        """False when the run is over before the time is."""
        if self._plan.duration_s is not None:
            seconds = min(seconds, self._plan.duration_s - self.elapsed_s())
        if seconds > 0:
            # Not asyncio.timeout: grpclib leaves the task's count of cancellations raised when a stream dies, which
            # before Python 3.11.3 makes of every later time-out a cancellation.
            waiting = asyncio.ensure_future(self.brake.gentle.wait())
            try:
                await asyncio.wait((waiting,), timeout=seconds)
            finally:
                waiting.cancel()
        return not self._over()

    def _over(self) -> bool:
        duration_s = self._plan.duration_s
        return self.brake.pulled or (duration_s is not None and self.elapsed_s() >= duration_s)
