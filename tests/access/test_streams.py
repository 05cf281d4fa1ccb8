"""A call that streams is held to its key for as long as it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from ingestor.access import Keys
from ingestor.caller import CALLER
from ingestor.errors import Unauthenticated
from ingestor.transport.streams import Closing, run
from tests.access.kit import bearer, gate, make, revoked


async def test_answers_end_with_the_key() -> None:
    """Also those that nobody asks for one by one: what was made after the key's end is not sent."""
    key, text = make("read")
    door = gate(key)
    sent: list[bytes] = []

    async def stream(_: object) -> AsyncGenerator[bytes, None]:
        for number in range(5):
            if number == 2:
                door.use(Keys([revoked(key)]))
            yield bytes([number])

    async def requests() -> AsyncGenerator[Any, None]:
        yield None

    async def send(message: bytes) -> None:
        sent.append(message)

    rpc: Any = SimpleNamespace(client_streaming=False, stream=stream)
    token = CALLER.set(door.recognise("/read", bearer(text), ()).enter())
    with pytest.raises(Unauthenticated):
        await run(rpc, requests(), send, Closing())
    CALLER.reset(token)
    assert sent == [b"\0", b"\1"]


@pytest.mark.parametrize("client_streaming", [False, True], ids=["answers", "requests"])
async def test_a_stream_that_is_silent_ends_with_the_key(client_streaming: bool) -> None:
    """Whether it waits for what it could tell, or for what it is told; a key that holds changes nothing."""
    key, text = make("read")
    door, closing, silent = gate(key), Closing(), asyncio.Event()

    async def stream(requests: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
        async for _ in requests:
            silent.set()
            await asyncio.Event().wait()
        yield b""

    async def requests() -> AsyncGenerator[Any, None]:
        if client_streaming:
            async with closing.waiting():
                silent.set()
                await asyncio.Event().wait()
        yield None

    async def send(message: bytes) -> None:
        raise AssertionError(message)

    rpc: Any = SimpleNamespace(client_streaming=client_streaming, stream=stream)
    token = CALLER.set(door.recognise("/read", bearer(text), ()).enter())
    call = asyncio.create_task(run(rpc, requests(), send, closing))
    CALLER.reset(token)
    await silent.wait()
    closing.check(0.0)
    await asyncio.wait([call], timeout=0.01)
    assert not call.done()
    door.use(Keys([revoked(key)]))
    closing.check(0.0)
    closing.check(1.0)
    with pytest.raises(Unauthenticated):
        await asyncio.wait_for(call, 5)
