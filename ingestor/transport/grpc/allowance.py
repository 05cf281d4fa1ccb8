"""What one connection has: to spend, to hold, and how its streams are told that it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingestor.caller import Caller
from ingestor.transport.bounds import Bounds
from ingestor.transport.grpc.floods import Budget
from ingestor.transport.holding import Holding
from ingestor.transport.streams import Closing


@dataclass(slots=True)
class Acquaintance:
    """Whether somebody known has called on a connection: with a key, where keys are needed for anything of use."""

    made: bool = False

    def note(self, caller: Caller) -> None:
        """It is this one who calls."""
        if caller.known:
            self.made = True


@dataclass(frozen=True, slots=True)
class Allowance:
    """`bodies` are the requests that have not come whole, `answers` those that its windows hold up."""

    bounds: Bounds
    bodies: Holding
    answers: Holding
    budget: Budget = field(default_factory=Budget)
    closing: Closing = field(default_factory=Closing)
    acquaintance: Acquaintance = field(default_factory=Acquaintance)
