"""Who calls, and what they may: the transports find out, and methods ask.

It knows neither keys nor protocols, and decides nothing that was not decided when the call came in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

EVERYTHING = ("",)
"""As prefixes of service names: all of them."""


def unlimited(*_: object) -> None:
    """In place of a bound, where there is none."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`id` is the same for all keys of one caller, empty for who needs none. The prefixes are those of the service
    names that it may write and read: an empty tuple allows none. `series_max` is how many series it may write in
    an hour, None for what holds for all. `check` raises Unauthenticated once the call should not have been let in
    any more; `enter` asks for one more request, and `spend` for so many metrics: both raise TooFast. `known` is
    false for who was let in without a key where others need one."""

    id: str = ""
    write_prefixes: tuple[str, ...] = EVERYTHING
    read_prefixes: tuple[str, ...] = EVERYTHING
    series_max: int | None = None
    known: bool = True
    check: Callable[[], None] = field(default=unlimited, repr=False, compare=False)
    enter: Callable[[], None] = field(default=unlimited, repr=False, compare=False)
    spend: Callable[[int], None] = field(default=unlimited, repr=False, compare=False)

    def may_write(self, service_name: str) -> bool:
        """Whether metrics of this service may come from this caller."""
        return service_name.startswith(self.write_prefixes)

    def may_read(self, service_name: str) -> bool:
        """Whether they may be shown to it."""
        return service_name.startswith(self.read_prefixes)

    @property
    def writes_all(self) -> bool:
        """Whether no service name has to be looked at before it is written."""
        return "" in self.write_prefixes


ANYBODY = Caller()
"""Where no keys are needed."""
NOBODY = Caller(known=False)
"""Who calls what needs none, whether others do or not."""
CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
"""Who makes the call that the running task serves."""
