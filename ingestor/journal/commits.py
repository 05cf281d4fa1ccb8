"""Who wants to hear of a commit: the receipts of entries that are not settled, in the order of their positions.

It holds no rows, and decides nothing; it tells each receipt, and the request ids, what became of their rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ingestor.journal.receipts import Offer, Receipt
from ingestor.journal.request_ids import RequestIds
from ingestor.model import Ack, DeadRow, Entry, Outcome, Placed, Request


class _Due(NamedTuple):
    """The rows from `first` on, `rows` of them, of the entry at `position`."""

    position: int
    first: int
    rows: int
    request: Request | None
    receipt: Receipt


class Commits:
    """What waits for a commit."""

    def __init__(self, requests: RequestIds, urge: Callable[[], object]) -> None:
        """`urge` makes the journal hurry."""
        self._requests = requests
        self._urge = urge
        self._due: deque[_Due] = deque()

    def add(self, position: int, first: int, offer: Offer) -> None:
        """An offer has become rows of the entry at `position`, those from `first` on. Positions never decrease."""
        if offer.receipt is not None and (offer.ack is Ack.COMMITTED or offer.request is not None):
            self._due.append(_Due(position, first, offer.batch.rows, offer.request, offer.receipt))

    def settled(self, entries: Sequence[Entry], outcome: Outcome) -> None:
        """These entries are committed; `outcome` counts their rows from the first of them."""
        last = entries[-1].position
        if not self._due or self._due[0].position > last:
            return
        begins: dict[int, int] = {}
        row = 0
        for entry in entries:
            begins[entry.position] = row
            row += entry.batch.rows
        while self._due and self._due[0].position <= last:
            due = self._due.popleft()
            self._tell(due, _within(outcome.dead, begins[due.position] + due.first, due.rows))

    def restart(self, position: int, placed: Iterable[tuple[int, Placed]]) -> None:
        """What stands up to `position` is committed, what lies behind it is not; `placed` are the requests
        there, with their entries' positions, of which some may not be known any more, or not yet."""
        while self._due and self._due[0].position <= position:
            self._tell(self._due.popleft(), ())
        due = {(each.position, each.first): each for each in self._due}
        for at, (first, rows, request) in placed:
            if (at, first) not in due:
                receipt = Receipt()
                receipt.advance(Ack.JOURNALED)
                due[at, first] = _Due(at, first, rows, request, receipt)
                self._requests.hold(request, receipt, self._urge)
        self._due = deque(due[key] for key in sorted(due))

    def _tell(self, due: _Due, dead: tuple[DeadRow, ...]) -> None:
        due.receipt.advance(Ack.COMMITTED, dead)
        if due.request is not None:
            self._requests.committed(due.request, dead)


def _within(dead: Sequence[DeadRow], first: int, rows: int) -> tuple[DeadRow, ...]:
    """Those that lie within these rows, counted from the first of these."""
    return tuple(each._replace(row=each.row - first) for each in dead if first <= each.row < first + rows)
