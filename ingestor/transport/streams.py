"""Runs the calls that stream, one message at a time: a request is read when the method asks for it, and an answer
is made when the one before it has left for the client. So the client's pace is the method's, and the reverse,
and what a call holds is one message and what the protocol's windows let lie.

When the server stops, a stream takes no further request: the one in hand is answered, and then the stream ends with
UNAVAILABLE, as it does at once where it waits for a request. So does one whose method has a single request,
wherever it waits: for its next answer, or for a client that does not read. What a client was not answered was not
taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass

from ingestor.caller import CALLER, Caller
from ingestor.errors import Refusal, TooFast, Unavailable
from ingestor.transport.rpc import Rpc, StreamedRequest

_RETRY_AFTER_S = 1.0
# How long a client has to take its last answer when the server stops.
_LAST_ANSWER_S = 1.0


@dataclass(slots=True, eq=False)
class _Wait:
    """`refusal` is what its caller has to be told since."""

    scope: asyncio.Timeout
    caller: Caller
    grace_s: float
    refusal: Refusal | None = None


class Closing:
    """Tells the streams of a server that it stops, or that their callers may call no more, and wakes those that
    wait."""

    def __init__(self) -> None:
        self._begun = False
        self._waits: set[_Wait] = set()

    def begin(self) -> None:
        """From now on."""
        self._begun = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.scope.reschedule(now + wait.grace_s)

    def check(self, now: float) -> None:
        """Looks whether those who wait may still call, as it is done of itself with each message: a stream on which
        nothing happens would outlive its key. `now` is not needed."""
        for wait in self._waits:
            if wait.refusal is not None:
                continue
            try:
                wait.caller.check()
            except Refusal as refusal:
                wait.refusal = refusal.with_traceback(None)
                wait.scope.reschedule(0.0)

    @asynccontextmanager
    async def waiting(self, grace_s: float = 0.0) -> AsyncIterator[None]:
        """Around what a stream waits for. Raises Unavailable when the server stops, or so many seconds later, and
        Unauthenticated when the caller's key does not hold any more."""
        if self._begun and not grace_s:
            raise _stopping()
        # A timeout without a time: what cancels the wait, and nothing beyond it.
        scope = asyncio.timeout(grace_s if self._begun else None)
        wait = _Wait(scope, CALLER.get(), grace_s)
        self._waits.add(wait)
        try:
            async with scope:
                yield
        except TimeoutError:
            if scope.expired():
                raise wait.refusal or _stopping() from None
            raise
        finally:
            self._waits.discard(wait)


async def run(
    rpc: Rpc,
    given: AsyncGenerator[StreamedRequest, None],
    send: Callable[[bytes], Awaitable[None]],
    closing: Closing,
) -> None:
    """Runs the call to its end: `given` are its requests, which wait for the client with `closing.waiting`; `send`
    takes one message for it. Raises Refusal, and what the method raises."""
    # Of a single request nothing can be half done that its client would have to know; of several the one in hand is
    # answered, if its client takes that.
    caller = CALLER.get()
    waiting, grace_s = (nullcontext, _LAST_ANSWER_S) if rpc.client_streaming else (closing.waiting, 0.0)
    async with (
        aclosing(_let_in(given, caller, closing)) as requests,
        aclosing(rpc.stream(requests)) as answers,
    ):
        while True:
            async with waiting():
                answer = await anext(answers, None)
            if answer is None:
                return
            caller.check()
            async with closing.waiting(grace_s):
                await send(answer)
            del answer
            # Where nothing has to be waited for, thousands of messages would be one turn of the event loop.
            await asyncio.sleep(0)


async def _let_in(
    given: AsyncGenerator[StreamedRequest, None], caller: Caller, closing: Closing
) -> AsyncGenerator[StreamedRequest, None]:
    """The same requests. Each but the first, which came in with the call, asks the caller's key: one that comes too
    soon waits, and so holds up its sender. Raises Unauthenticated."""
    first = True
    async with aclosing(given) as requests:
        async for request in requests:
            if not first:
                await _entered(caller, closing)
            first = False
            yield request


async def _entered(caller: Caller, closing: Closing) -> None:
    while True:
        try:
            caller.enter()
        except TooFast as refusal:
            async with closing.waiting():
                await asyncio.sleep(refusal.retry_after_s)
        else:
            return


def _stopping() -> Unavailable:
    return Unavailable("the server is stopping: what was not answered was not taken", _RETRY_AFTER_S)
