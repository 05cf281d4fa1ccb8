"""What became of fuzzed requests, counted, and which answers no server may give.

An answer that may not be ends the run with the request that got it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class Wrong(Exception):
    """The server did what it may not; the text holds the request."""


@dataclass
class Tally:
    """`outcomes` by status; `cut_off` requests lost their connection, which the server ended with an error."""

    outcomes: Counter[str] = field(default_factory=Counter)
    cut_off: int = 0

    @property
    def requests(self) -> int:
        """All that have their end."""
        return self.outcomes.total() + self.cut_off

    def note(self, status: str) -> None:
        """One more answer."""
        self.outcomes[status] += 1
