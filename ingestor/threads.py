"""Lets the event loop go first where threads work beside it: few at once, and none that may hang among them.

It makes none of them faster: on one GIL, more of them only keep every step of every call waiting. The GIL changes
hands as often as CPython has it: each millisecond, instead of each five, was measured to cost a tenth of what bulk
requests reach.
"""

from __future__ import annotations

import _thread
import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_AT_ONCE = 2

ResultT = TypeVar("ResultT")


def step_aside() -> None:
    """For the running loop's own threads."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="aside"))


def apart(function: Callable[[], ResultT]) -> asyncio.Future[ResultT]:
    """Begins what may hang for ever in a thread of its own: it takes none of the few, and neither the loop's end
    nor the process's waits for it. Who calls this bounds how many there are. When the future is cancelled, the
    thread goes on, and nobody hears of it. Raises RuntimeError when there can't be another thread."""
    called: Future[ResultT] = Future()
    called.set_running_or_notify_cancel()
    # Thread.start() would have the loop wait until the thread runs: 10 ms, where another one is busy.
    _thread.start_new_thread(_call, (function, called))
    return asyncio.wrap_future(called)


def _call(function: Callable[[], ResultT], called: Future[ResultT]) -> None:
    try:
        called.set_result(function())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again for who waits
        called.set_exception(error)
