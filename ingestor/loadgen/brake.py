"""How a run is told to stop: once gently, twice at once.

It is only a signal: what either means is up to the runner.
"""

from __future__ import annotations

import asyncio


class Brake:
    """Pulled by Ctrl-C, or by whoever called `run`."""

    def __init__(self) -> None:
        self.gentle = asyncio.Event()
        self.hard = asyncio.Event()

    def pull(self) -> None:
        """First: send nothing more, wait briefly for answers. Again: wait for nothing."""
        if self.gentle.is_set():
            self.hard.set()
        self.gentle.set()

    @property
    def pulled(self) -> bool:
        return self.gentle.is_set()
