"""Whether this process can do its work now, with the reason where it can't.

A check is asked whenever somebody asks us (what it costs is its own affair); nothing here is remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Check = Callable[[], Awaitable[str | None]]
"""Returns None when all is well, else the reason in words for an operator."""


class Health:
    """A list of named checks. `ready` needs all of them, in the order in which they were added."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Asks `check` from now on."""
        self._checks[name] = check

    async def problems(self) -> dict[str, str]:
        """The checks that failed, with their reasons; empty when ready."""
        answers = {name: await check() for name, check in self._checks.items()}
        return {name: reason for name, reason in answers.items() if reason is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """What is checked."""
        return tuple(self._checks)
