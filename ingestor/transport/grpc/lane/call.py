"""What the lane knows of one call, from its headers until its answer is handed over. It decides nothing and sends
nothing: each step of the lane reads and writes what is its own.
"""

from __future__ import annotations

import asyncio

from ingestor.caller import ANYBODY
from ingestor.transport.grpc.framing import Framing
from ingestor.transport.grpc.lane.answer import Answer
from ingestor.transport.grpc.opening import Opening
from ingestor.transport.holding import Held
from ingestor.transport.stalls import Stall


class Call:
    """One call, which began when its headers came. `sent` are the answer's bytes, and `credit` how many of them we
    were told we may beyond a stream's first window. `window` is what the client may send of the request; `held` are
    its bytes as long as it has not come whole, `unread` those of the answer that can't be sent yet."""

    __slots__ = (
        *("began_at", "caller", "credit", "expired", "framing", "held", "opening", "sent"),
        *("stall", "stream_id", "task", "timer", "unread", "unsent", "window"),
    )

    def __init__(
        self, stream_id: int, opening: Opening, framing: Framing, began_at: float, window: int
    ) -> None:
        self.began_at = began_at
        self.caller = ANYBODY
        self.stream_id = stream_id
        self.opening = opening
        self.framing: Framing | None = framing  # until the request has ended, or is not listened to any more
        self.window = window
        self.sent = self.credit = 0
        self.held: Held | None = None
        self.stall: Stall | None = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.expired = False
        self.unread: Held | None = None
        self.unsent: Answer | None = None

    def heard_out(self) -> None:
        """The request is whole, or not listened to any more."""
        self.framing = None
        if self.held is not None:
            self.held.end()

    def let_go(self) -> None:
        """Nobody waits for its answer: what it would still do, it does not."""
        self.heard_out()
        if self.timer is not None:
            self.timer.cancel()
        if self.task is not None:
            self.task.cancel()
