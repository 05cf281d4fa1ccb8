"""Every test of the gRPC side runs twice: with unary calls in the lane, and without it, grpclib's own way."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from loguru import logger

from tests.gateway import Gateway, gateway
from tests.transport.grpc.raw_h2 import RawClient


@pytest.fixture(autouse=True, params=["true", "false"], ids=["lane", "grpclib"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the lane is on in this run of the test."""
    monkeypatch.setenv("INGESTOR_GRPC_LANE", request.param)
    return bool(request.param == "true")


@pytest.fixture
async def running(database_url: str) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started


@pytest.fixture
async def raw(running: Gateway) -> AsyncIterator[RawClient]:
    client = RawClient()
    await client.connect(running.grpc_port)
    yield client
    await client.close()


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """What is logged as WARNING or worse, or with a traceback, by us or by a library."""
    found: list[str] = []

    def of_library(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or record.exc_info:
            found.append(record.getMessage())
        return False

    handler = logging.Handler()
    handler.addFilter(of_library)
    logging.getLogger().addHandler(handler)
    ours = logger.add(found.append, level="WARNING", format="{message}")
    yield found
    logger.remove(ours)
    logging.getLogger().removeHandler(handler)
