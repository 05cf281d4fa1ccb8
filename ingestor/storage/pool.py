"""Connections whose commits are durable, whatever the server's defaults say.

None is kept open for its own sake: a worker that retries is all the reconnecting that we need.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from ingestor.storage.transactions import Pool, leave_as_it_is

_CONNECT_TIMEOUT_S = 10.0
_POOL_SIZE_MAX = 4
_CONNECT: dict[str, Any] = {
    "timeout": _CONNECT_TIMEOUT_S,
    # What is acknowledged as committed must be on the server's disk, whatever its default says.
    "server_settings": {"synchronous_commit": "on", "TimeZone": "UTC", "application_name": "ingestor"},
}


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """One connection, which is no pool's. Raises what asyncpg raises."""
    return await asyncpg.connect(url, **_CONNECT)


async def open_pool(url: str) -> Pool:
    """Raises what asyncpg raises."""
    return await asyncpg.create_pool(
        url, min_size=0, max_size=_POOL_SIZE_MAX, reset=leave_as_it_is, **_CONNECT
    )


def move_pool(pool: Pool, url: str) -> None:
    """New connections go there from now on."""
    pool.set_connect_args(url, **_CONNECT)
