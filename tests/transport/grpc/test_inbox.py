"""What came in and was not read yet: what it takes, and what of the window is given back when."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from ingestor.transport.grpc.inbox import Inbox
from ingestor.transport.holding import Holding


class Window:
    """What was given back."""

    def __init__(self) -> None:
        self.free = 0

    def __call__(self, size: int) -> None:
        self.free += size


async def test_as_much_is_given_back_as_was_read() -> None:
    """Nothing of what lies there unread, and all of it at the end, padding included."""
    window = Window()
    inbox = Inbox(window, Holding(2**20))
    for _ in range(10):
        inbox.add(b"0123456789", 15)
    assert window.free == 0
    assert await inbox.read(25) == b"0123456789012345678901234"[:25]
    assert window.free == 25
    await inbox.read(75)
    assert window.free == 150


async def test_what_is_waited_for_may_be_larger_than_the_window() -> None:
    """All that is there is given back, since there is no other way to get the rest."""
    window = Window()
    inbox = Inbox(window, Holding(2**20))
    inbox.add(b"12345", 5)
    reading = asyncio.create_task(inbox.read(8))
    await asyncio.sleep(0)
    assert window.free == 5
    inbox.add(b"678", 3)
    assert await reading == b"12345678"
    assert window.free == 8


async def test_the_end() -> None:
    """Is no bytes; one in the middle is told apart; and it wakes who waits."""
    inbox = Inbox(Window(), Holding(2**20))
    inbox.add(b"123", 3)
    reading = asyncio.create_task(inbox.read(4))
    await asyncio.sleep(0)
    inbox.eof()
    with pytest.raises(AssertionError):
        await reading
    assert await inbox.read(3) == b"123"
    assert await inbox.read(3) == b""
    assert await inbox.read(0) == b""


async def test_tiny_frames_take_no_more_than_their_bytes() -> None:
    """Else a window of 4 MiB would be some hundred MiB of objects."""
    inbox = Inbox(Window(), Holding(2**20))
    tracemalloc.start()
    for _ in range(100_000):
        inbox.add(b"x", 1)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 300_000
