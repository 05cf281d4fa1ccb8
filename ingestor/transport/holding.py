"""Bounds what others make the server hold: who has gone longest without progress is let go first. Pure.

So bytes that are sent and left lying never keep out those that move. It refuses nobody by itself: each holder says
how it is let go.
"""

from __future__ import annotations

from collections.abc import Callable


class Holding:
    """So many bytes at most; `within` is a larger bound, which what is held here counts against as well."""

    def __init__(self, bytes_max: int, within: Holding | None = None) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._within = within
        self._held: dict[Held, int] = {}  # in the order of their latest growth

    def begin(self, let_go: Callable[[], None]) -> Held:
        """Something that will hold bytes. `let_go` is called, once, when there is no room for it."""
        return Held(self, let_go)

    def _grew(self, held: Held, size: int) -> None:
        self._held[held] = self._held.pop(held, 0) + size
        self.bytes += size
        while self.bytes > self._bytes_max and self._held:
            next(iter(self._held)).evict()
        if self._within is not None and not held.ended:
            self._within._grew(held, size)

    def _ended(self, held: Held) -> None:
        self.bytes -= self._held.pop(held, 0)
        if self._within is not None:
            self._within._ended(held)


class Held:
    """What one holder has. When it is let go, or has ended, it holds nothing and grows no more."""

    __slots__ = ("_holding", "_let_go", "ended")

    def __init__(self, holding: Holding, let_go: Callable[[], None]) -> None:
        self.ended = False
        self._holding = holding
        self._let_go = let_go

    def grow(self, size: int) -> None:
        """It holds so much more, or less. Others, or it itself, may be let go for that."""
        if not self.ended:
            self._holding._grew(self, size)

    def end(self) -> None:
        """It holds nothing any more."""
        if not self.ended:
            self.ended = True
            self._let_go = _nothing  # which knows the holder: else both would be garbage in a circle
            self._holding._ended(self)

    def evict(self) -> None:
        """There is no room for it."""
        if not self.ended:
            let_go = self._let_go
            self.end()
            let_go()


def _nothing() -> None:
    pass
