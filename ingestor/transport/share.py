"""What all connections of a process share of the bounds, over both protocols."""

from __future__ import annotations

import random

from ingestor.transport.bounds import Bounds
from ingestor.transport.holding import Holding


class Share:
    """`receiving` are the bytes of requests that have not come whole, `unread` those of answers that clients leave
    lying."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.receiving = Holding(bounds.receive_bytes)
        self.unread = Holding(bounds.send_bytes)

    def bodies(self) -> Holding:
        """For a connection that has many requests at once: half of what all may have."""
        return Holding(self.bounds.receive_bytes // 2, within=self.receiving)

    def age_s(self) -> float:
        """How old a new connection may become, 0 for any age. Not all that began together end together."""
        return self.bounds.age_max_s * random.uniform(0.9, 1.1)  # noqa: S311
