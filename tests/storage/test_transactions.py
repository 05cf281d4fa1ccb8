"""What is heard of statements that nobody waits for any more."""

from __future__ import annotations

import asyncio
import gc

import asyncpg
import pytest
from loguru import logger

from ingestor.storage.transactions import told_by_nobody


@pytest.mark.parametrize(
    ("error", "told"),
    [(asyncpg.ConnectionDoesNotExistError("connection was closed"), False), (ValueError("a mistake"), True)],
)
async def test_a_statement_that_was_given_up_is_no_error(error: Exception, *, told: bool) -> None:
    """Its connection is lost later, and whoever gave it up has said so. What else nobody looks at is told, without
    the values that are in it."""
    lines: list[str] = []
    sink = logger.add(lines.append, level="ERROR", format="{message}", backtrace=False, diagnose=False)
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(told_by_nobody)
    try:
        future = loop.create_future()
        future.set_exception(error)
        del future
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
        logger.remove(sink)
    assert any("never retrieved" in line for line in lines) is told
    assert not any("a mistake" in line.splitlines()[0] for line in lines)
