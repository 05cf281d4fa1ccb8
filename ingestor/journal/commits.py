"""Who wants to hear of a commit: the receipts of entries that are not settled, in the order of their positions.

It holds no rows, and decides nothing; it tells each receipt, and the request ids, what became of their rows. It
keeps those that somebody waits for, or may come to ask about, and no others for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ingestor.errors import Refusal, Unavailable
from ingestor.journal.admission import RETRY_AFTER_S
from ingestor.journal.receipts import Offer, Receipt
from ingestor.journal.request_ids import RequestIds, conflict
from ingestor.model import Ack, DeadRow, Entry, Outcome, Placed, Request, Taken

# So many are kept before it is looked who of them has given up waiting.
_SWEPT_AT = 10_000


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
        self._swept_at = _SWEPT_AT
        self._abandoned: Refusal | None = None

    def __len__(self) -> int:
        """How many receipts are kept."""
        return len(self._due)

    def add(self, position: int, first: int, offer: Offer) -> None:
        """An offer that has a receipt has become rows of the entry at `position`, those from `first` on. Positions
        never decrease."""
        assert offer.receipt is not None
        if self._abandoned is not None:
            offer.receipt.abandon(self._abandoned)
            return
        due = _Due(position, first, offer.batch.rows, offer.request, offer.receipt)
        if self._is_wanted(due):
            self._due.append(due)
            if len(self._due) >= self._swept_at:
                self._due = deque(filter(self._is_wanted, self._due))
                self._swept_at = max(_SWEPT_AT, 2 * len(self._due))

    def settled(self, entries: Sequence[Entry | Taken], outcome: Outcome) -> None:
        """These entries are committed; `outcome` counts their rows from the first of them."""
        last = entries[-1].position
        if not self._due or self._due[0].position > last:
            return
        begins: dict[int, int] = {}
        row = 0
        for entry in entries:
            begins[entry.position] = row
            row += entry.rows
        duplicates, conflicts = _spots(entries, outcome.duplicates), _spots(entries, outcome.conflicts)
        while self._due and self._due[0].position <= last:
            due = self._due.popleft()
            spot = due.position, due.first
            if due.position not in begins:
                self._tell_lost(due)
            elif due.request is not None and spot in duplicates:
                self._requests.resolve(due.request, due.receipt)
            elif due.request is not None and spot in conflicts:
                self._requests.drop(due.request)
                due.receipt.fail(conflict(due.request))
            else:
                self._tell(due, _within(outcome.dead, begins[due.position] + due.first, due.rows))

    def lost(self, after: int, last: int) -> None:
        """The disk does not give back what stands behind `after`, up to `last`."""
        due, self._due = self._due, deque()
        for each in due:
            if after < each.position <= last:
                self._tell_lost(each)
            else:
                self._due.append(each)

    def abandon(self, refusal: Refusal) -> None:
        """Nobody will hear of a commit here any more: who waits for one is told so, and who comes to."""
        self._abandoned = refusal
        self._requests.give_up_resolving()
        for due in self._due:
            due.receipt.abandon(refusal)
        self._due.clear()

    def restart(self, position: int, placed: Iterable[tuple[int, Placed]]) -> None:
        """What stands up to `position` is committed, what lies behind it is not; `placed` are the requests
        there, with their entries' positions, of which some may not be known any more, or not yet."""
        while self._due and self._due[0].position <= position:
            due = self._due.popleft()
            if due.request is None:
                self._tell(due, ())
            else:
                self._requests.resolve(due.request, due.receipt)
        due_at = {(each.position, each.first): each for each in self._due}
        for at, (first, rows, request) in placed:
            if (at, first) not in due_at:
                receipt = Receipt()
                receipt.advance(Ack.JOURNALED)
                if self._abandoned is not None:
                    receipt.abandon(self._abandoned)
                due_at[at, first] = _Due(at, first, rows, request, receipt)
                self._requests.hold(request, receipt, self._urge, Ack.JOURNALED)
        self._due = deque(due_at[key] for key in sorted(due_at) if self._is_wanted(due_at[key]))

    def _is_wanted(self, due: _Due) -> bool:
        held = due.request is not None and self._requests.holds(due.request, due.receipt)
        return held or due.receipt.awaited

    def _tell(self, due: _Due, dead: tuple[DeadRow, ...]) -> None:
        due.receipt.advance(Ack.COMMITTED, dead)
        if due.request is not None:
            self._requests.committed(due.request, dead)

    def _tell_lost(self, due: _Due) -> None:
        if due.request is not None:
            self._requests.drop(due.request)
        msg = "it was in the journal, and the disk doesn't give it back (see the log): it is lost, so send it again"
        due.receipt.fail(Unavailable(msg, RETRY_AFTER_S))


def _spots(entries: Sequence[Entry | Taken], indexes: Sequence[int]) -> set[tuple[int, int]]:
    """Where the requests with these indexes stand: their entries' positions, and their first rows in those."""
    if not indexes:
        return set()
    spots = [(entry.position, placed.first) for entry in entries for placed in entry.requests]
    return {spots[index] for index in indexes}


def _within(dead: Sequence[DeadRow], first: int, rows: int) -> tuple[DeadRow, ...]:
    """Those that lie within these rows, counted from the first of these."""
    return tuple(each._replace(row=each.row - first) for each in dead if first <= each.row < first + rows)
