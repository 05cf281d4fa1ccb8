"""The server of these tests, and plans that point at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ingestor.loadgen import LoadPlan
from tests.loadgen.fake_server import FakeServer


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as running:
        yield running


@pytest.fixture
def plan(server: FakeServer) -> Callable[..., LoadPlan]:
    """A small plan against the server, with what the test asks for."""

    def of(**fields: Any) -> LoadPlan:
        target = {"grpc": f"127.0.0.1:{server.grpc_port}", "http": f"http://127.0.0.1:{server.http_port}"}
        small = {"connections": 2, "streams": 2, "batch": 10, "reconnect_s": 5.0}
        if not {"count", "duration_s"} & fields.keys():
            small["count"] = 200
        return LoadPlan(**{**target, **small, **fields})

    return of
