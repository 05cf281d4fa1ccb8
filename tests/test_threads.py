"""What works beside the event loop leaves it its turn."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ingestor.threads import apart, step_aside


def test_few_at_once() -> None:
    """Two are at work at once, never three."""
    both, lock = threading.Barrier(2), threading.Lock()
    now = most = 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        both.wait(20)  # who is alone would break it
        with lock:
            now -= 1

    async def main() -> None:
        step_aside()
        await asyncio.gather(*(asyncio.to_thread(work) for _ in range(40)))

    asyncio.run(main())
    assert most == 2


def test_what_hangs_is_apart() -> None:
    """It takes none of the few, and the loop ends without it."""
    goes_on = threading.Event()
    ended = list[bool]()

    def hang() -> None:
        ended.append(goes_on.wait(5))

    async def main() -> None:
        step_aside()
        hanging = [apart(hang) for _ in range(3)]
        assert await asyncio.to_thread(lambda: "done") == "done"
        for each in hanging:
            each.cancel()

    asyncio.run(main())
    assert ended == []
    goes_on.set()


def test_what_is_apart_is_heard() -> None:
    """What it returns, and what it raises."""

    async def main() -> None:
        assert await apart(lambda: threading.current_thread() is threading.main_thread()) is False
        with pytest.raises(ZeroDivisionError):
            await apart(lambda: 1 // 0)

    asyncio.run(main())
