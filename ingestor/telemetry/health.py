"""Whether this process can do its work now, with the reason where it can't.

A check is asked whenever somebody asks us (what it costs is its own affair); nothing here is remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

Status = Literal["ready", "degraded", "not ready"]
Check = Callable[[], Awaitable[str | None]]
"""Returns None when all is well, else the reason in words for an operator."""


class Health:
    """A list of named checks, in the order in which they were added. Ready is who passes those that are vital."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._vital: set[str] = set()

    def add(self, name: str, check: Check, *, vital: bool = True) -> None:
        """Asks `check` from now on."""
        self._checks[name] = check
        if vital:
            self._vital.add(name)

    async def look(self) -> Looked:
        """Asks them all."""
        answers = {name: await check() for name, check in self._checks.items()}
        failed = {name for name, reason in answers.items() if reason is not None}
        status: Status = "not ready" if failed & self._vital else "degraded" if failed else "ready"
        return Looked(status, {name: reason or "ok" for name, reason in answers.items()})


class Looked(NamedTuple):
    """`ready`, `degraded` (something that is not vital fails: metrics are taken and kept) or `not ready`, and
    what each check said: `ok`, or what is wrong."""

    status: Status
    checks: dict[str, str]
