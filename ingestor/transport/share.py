"""What all connections of a process share of the bounds, over both protocols; tells when one is reached."""

from __future__ import annotations

import random
from typing import Literal, Protocol, TypeAlias

from ingestor.transport.bounds import Bounds
from ingestor.transport.holding import Holding

Reason: TypeAlias = Literal["flood", "slow", "unread", "silent", "too_many", "idle", "age"]


class CutOff(Protocol):
    """A connection of this protocol, `grpc` or `http`, is ended for this reason, which is a bound."""

    def __call__(self, protocol: str, reason: Reason, /) -> None: ...


def untold(_protocol: str, _reason: Reason, /) -> None:
    """For who counts nothing."""


class Share:
    """`receiving` are the bytes of requests that have not come whole, `unread` those of answers that clients leave
    lying; `cut_off` is told of each connection that is ended for its client's doing."""

    def __init__(self, bounds: Bounds, cut_off: CutOff = untold) -> None:
        self.bounds = bounds
        self.cut_off = cut_off
        self.receiving = Holding(bounds.receive_bytes)
        self.unread = Holding(bounds.send_bytes)

    def bodies(self) -> Holding:
        """For a connection that has many requests at once: half of what all may have."""
        return Holding(self.bounds.receive_bytes // 2, within=self.receiving)

    def answers(self) -> Holding:
        """The same of answers that HTTP/2's windows hold up."""
        return Holding(self.bounds.send_bytes // 2, within=self.unread)

    def age_s(self) -> float:
        """How old a new connection may become, 0 for any age. Not all that began together end together."""
        return self.bounds.age_max_s * random.uniform(0.9, 1.1)  # noqa: S311
