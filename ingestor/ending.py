"""Ends that are not left half done, since half an end leaves a server or its files behind.

It makes nobody faster, and bounds nothing: what is to end has its own bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def to_its_end(cleanup: Awaitable[object]) -> None:
    """Awaits it, and once more if we are cancelled meanwhile."""
    task = asyncio.ensure_future(cleanup)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
