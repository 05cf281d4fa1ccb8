"""What the lanes of all connections of a server share. It knows no connection, and no call but by its task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ingestor.transport.admission import OPEN, Gate
from ingestor.transport.grpc.calls import Method
from ingestor.transport.observing import Observers


class Lanes:
    """The unary methods, who is told what became of calls, the bound of a message in bytes, who is let in, and the
    `tasks` that run methods."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        message_bytes_max: int,
        observers: Observers,
        gate: Gate = OPEN,
    ) -> None:
        self.gate = gate
        self.observers = observers
        self.message_bytes_max = message_bytes_max
        self.tasks: set[asyncio.Task[None]] = set()
        self.methods = methods
