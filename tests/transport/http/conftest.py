"""What is served to the tests of the HTTP side."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from loguru import logger

from tests.gateway import Gateway, gateway
from tests.transport.http.streams_kit import Served


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    one = Served()
    one.port = await one.server.start("127.0.0.1", 0)
    yield one
    await one.server.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What was logged at WARNING or above, or with a traceback, by us or (aiohttp, asyncio) by way of `logging`."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    def keep(message: Any) -> None:
        if message.record["level"].no >= logging.WARNING or message.record["exception"]:
            lines.append(str(message))

    handler, sink = Handler(logging.WARNING), logger.add(keep, level="TRACE")
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)
    logger.remove(sink)
