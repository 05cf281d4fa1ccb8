"""What one connection has: to spend, to hold, and how its streams are told that it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from ingestor.transport.bounds import Bounds
from ingestor.transport.grpc.floods import Budget
from ingestor.transport.holding import Holding
from ingestor.transport.streams import Closing


@dataclass(frozen=True, slots=True)
class Allowance:
    """`bodies` are the requests that have not come whole, `answers` those that its windows hold up."""

    bounds: Bounds
    bodies: Holding
    answers: Holding
    budget: Budget = field(default_factory=Budget)
    closing: Closing = field(default_factory=Closing)
