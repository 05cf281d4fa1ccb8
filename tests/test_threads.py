"""What works beside the event loop leaves it its turn."""

from __future__ import annotations

import asyncio
import threading

from ingestor.threads import step_aside


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
