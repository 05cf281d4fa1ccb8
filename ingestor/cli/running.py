"""Runs a command's work on an event loop, until it is done or a signal ends it.

It leaves nothing half undone: whoever is told to end has time to clean up, and is not told twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Coroutine
from typing import Any

from ingestor.errors import StartupError

_CLEANUP_S_MAX = 75.0  # twice an embedded database's longest end, and some
# What nobody waited for may still go on so long when all is done.
_REST_S_MAX = 5.0


def to_the_end(work: Coroutine[Any, Any, int]) -> int:
    """Runs it; the first SIGINT, SIGTERM or SIGHUP cancels it, those after that change nothing until it has
    cleaned up. Returns its exit code, or 128 and the signal's number."""
    return on_a_loop(_until_signalled(work))


def until_done(work: Coroutine[Any, Any, int]) -> int:
    """Runs it; when it is done the process ends, whatever it has left on the loop or in threads. What signals mean
    it knows itself."""
    return on_a_loop(_and_leave(work))


def on_a_loop(work: Coroutine[Any, Any, int]) -> int:
    """Runs it on uvloop where that exists (not every platform has a wheel), else on asyncio's own loop. Signals are
    the work's own affair."""
    try:
        import uvloop  # noqa: PLC0415 - not everywhere
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


async def _and_leave(work: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    # asyncio cancels what is left, and waits for it without a bound.
    try:
        code = await work
    except BaseException as error:  # it is raised again, and told there, if it comes so far
        loop.call_later(_REST_S_MAX, _fail, error)
        raise
    loop.call_later(_REST_S_MAX, os._exit, code)
    return code


def _fail(error: BaseException) -> None:
    if isinstance(error, StartupError):
        print(f"ingestor: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(error.exit_code)
    traceback.print_exception(error)
    os._exit(1)


async def _until_signalled(work: Coroutine[Any, Any, int]) -> int:
    received: list[int] = []
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)

    def on_signal(number: int) -> None:
        if not received:
            received.append(number)
            loop.call_later(_CLEANUP_S_MAX, os._exit, 128 + number)
            task.cancel()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what nohup is for
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]
    finally:
        for number in numbers if received else ():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # all is undone; Python's own end need not be disturbed
