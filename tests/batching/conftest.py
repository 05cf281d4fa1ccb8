"""What the log says while a test runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """Levels and texts of what the log says."""
    lines: list[tuple[str, str]] = []
    sink = logger.add(lambda line: lines.append((line.record["level"].name, line.record["message"])))
    yield lines
    logger.remove(sink)
