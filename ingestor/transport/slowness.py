"""Bounds how long a request may take to come whole, over both protocols, and says what callers are told then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ingestor.errors import Overloaded, SentTooSlowly
from ingestor.transport.holding import Held, Holding

_RETRY_AFTER_S = 1.0


def too_slow(seconds: float) -> SentTooSlowly:
    """A request did not come whole in its time."""
    return SentTooSlowly(
        f"the request did not come whole within {seconds:g}s (REQUEST_TIMEOUT): nothing was taken"
    )


def stood_still() -> Overloaded:
    """A request was let go, since others needed the room."""
    msg = "too many requests are on their way at once (RECEIVE_BYTES), and this one came slowest: nothing was taken"
    return Overloaded(msg, _RETRY_AFTER_S)


@asynccontextmanager
async def coming(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Around the wait for the rest of a request. Raises SentTooSlowly."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield scope
    except TimeoutError:
        if scope.expired():
            raise too_slow(seconds) from None
        raise


@asynccontextmanager
async def held(receiving: Holding, seconds: float) -> AsyncIterator[Held]:
    """The same, with what has come by now. Raises Overloaded, too, when others need its room."""
    body: Held | None = None
    try:
        async with coming(seconds) as scope:
            with_scope = scope

            def wake() -> None:
                with suppress(RuntimeError):  # it is at its end already
                    with_scope.reschedule(0.0)

            body = receiving.begin(wake)
            try:
                yield body
            finally:
                let_go = body.ended
                body.end()
    except SentTooSlowly:
        if let_go:
            raise stood_still() from None
        raise
