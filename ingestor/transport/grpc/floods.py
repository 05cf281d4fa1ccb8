"""What one HTTP/2 connection has left to spend on frames that cost the server work and ask it for nothing: resets,
PINGs, SETTINGS, empty DATA. Pure: it counts, and knows no time; whoever looks after connections refills it.

Calls that are answered earn more than any client spends on them, so that an honest one's pace has no bound here.
"""

from __future__ import annotations

BURST = 1_000
REFILL_A_SECOND = 100
ANSWER = 4
"""What an answered call, or a message of a stream, earns: a PING to measure the way, credit for what was read."""
LOST_TASK = 5
"""What it costs to give up a call that was given a task: resets in great numbers are CVE-2023-44487."""


class Budget:
    """`left` may be read and added to as it is, on the way of calls; below 0 the connection has to end."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left: float = BURST

    def spend(self, cost: int = 1) -> None:
        """For what asks for nothing."""
        self.left -= cost

    def earn(self) -> None:
        """For what was asked for, and answered."""
        self.left += ANSWER

    def refill(self, elapsed_s: float) -> None:
        """So many seconds have gone by. What was earned beyond the burst is not kept for later."""
        self.left = min(float(BURST), self.left + elapsed_s * REFILL_A_SECOND)
