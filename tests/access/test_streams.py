"""A call that streams is held to its key for as long as it lasts."""

from __future__ import annotations

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
