"""What the tests of requests over HTTP have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from loguru import logger

from ingestor.metadata import METADATA, CallMetadata
from tests.transport.library.service import Library
from tests.transport.transcoding.served import Served, serving


@pytest.fixture
async def served(library: Library) -> AsyncIterator[Served]:
    async with serving(library) as running:
        yield running


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def metadata(library: Library, monkeypatch: pytest.MonkeyPatch) -> list[CallMetadata]:
    """What came with each call; the answers carry some metadata back."""
    seen: list[CallMetadata] = []
    append = library.requests.append

    class Requests(list[Any]):
        def append(self, item: Any) -> None:
            here = METADATA.get()
            assert here is not None
            here.sent += [("x-one", "a"), ("x-one", "b"), ("x-bytes-bin", b"\xfb\xff")]
            seen.append(here)
            append(item)

    monkeypatch.setattr(library, "requests", Requests())
    return seen
