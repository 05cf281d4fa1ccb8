"""Connections are never so many that the journal or the database could open no file."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
from loguru import logger

from ingestor.file_limit import room_for_connections


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The soft and the hard limit, in place of this process's own."""
    now = [1024, 4096]

    def set_to(_: int, wanted: tuple[int, int]) -> None:
        now[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", set_to)
    return now


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(found.append, level="WARNING", format="{message}")
    yield found
    logger.remove(sink)


def test_the_limit_is_raised_as_far_as_is_needed(limits: list[int], warnings: list[str]) -> None:
    """And no further."""
    assert room_for_connections(1000, ports=2) == 1000
    assert limits == [2256, 4096]
    assert room_for_connections(100, ports=2) == 100
    assert limits == [2256, 4096]
    assert warnings == []


def test_beyond_the_hard_limit_there_are_fewer(limits: list[int], warnings: list[str]) -> None:
    """Which is said, with the numbers."""
    assert room_for_connections(5000, ports=2) == (4096 - 256) // 2
    assert "4096" in warnings[0]
    assert "CONNECTIONS_MAX" in warnings[0]


def test_those_that_only_begin_are_reckoned_with(limits: list[int], warnings: list[str]) -> None:
    """They take an open file each, too."""
    assert room_for_connections(1000, ports=2, beginning=0.25) == 1000
    assert limits == [2756, 4096]
    assert room_for_connections(5000, ports=2, beginning=0.25) == (4096 - 256) / 2.5
