"""What was asked and what was answered, row by row, and from that how often each row may be in the database.

It believes nothing but answers: a request without one may have been stored, once or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from ingestor.model.delivery import Ack
from tests.fault.harness.callers import Answer
from tests.fault.harness.requests import Request

Counts = npt.NDArray[np.int64]
# Codes with which the server promises that it took nothing.
NOTHING_TAKEN = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "INVALID_ARGUMENT"})
_UNKNOWN = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})


class Fate(Enum):
    """What the client knows of a request."""

    TAKEN = "taken"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


@dataclass(slots=True)
class Page:
    """A request and what became of it; `attempts` were sent and `unanswered` of them got no answer."""

    request: Request
    fate: Fate = Fate.UNANSWERED
    attempts: int = 0
    unanswered: int = 0
    rejected: tuple[int, ...] = ()


@dataclass(slots=True)
class Expected:
    """For each row number how often it must and how often it may be stored, which are timed, and which the
    database refuses."""

    least: Counts
    most: Counts
    timed: npt.NDArray[np.bool_]
    poisoned: npt.NDArray[np.bool_]


@dataclass
class Ledger:
    """All requests of a run. `complaints` are answers that no server may give."""

    pages: list[Page] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    rows: int = 0

    def open(self, request: Request) -> Page:
        """Notes a request that is about to be sent."""
        assert request.first == self.rows
        self.rows += request.size
        page = Page(request)
        self.pages.append(page)
        return page

    def note(self, page: Page, answer: Answer) -> None:
        """Notes what one attempt got."""
        page.attempts += 1
        if answer.code == "OK":
            self._check(page, answer)
            page.fate, page.rejected = Fate.TAKEN, answer.rejected
        elif answer.code is None or answer.code in _UNKNOWN:
            page.unanswered += 1
        elif answer.code == "FAILED_PRECONDITION" and page.request.poison and page.request.size == 1:
            page.fate = Fate.TAKEN  # it is in dead_letters, and that is the answer
        elif answer.code in NOTHING_TAKEN:
            # What an earlier attempt left is as unknown as before.
            page.fate = Fate.UNANSWERED if page.unanswered else Fate.REFUSED
        else:
            page.unanswered += 1
            self._complain(page, f"{answer.code}: {answer.message}")

    def _check(self, page: Page, answer: Answer) -> None:
        request, rejected = page.request, set(answer.rejected)
        if answer.accepted != request.size - len(rejected):
            self._complain(page, f"{answer.accepted} accepted of {request.size}, {len(rejected)} rejected")
        if not set(request.spoiled) <= rejected <= {*request.spoiled, *request.poison}:
            self._complain(page, f"rejected {sorted(rejected)[:20]} and not {request.spoiled}")
        elif request.ack is Ack.COMMITTED and not page.unanswered and not set(request.poison) <= rejected:
            self._complain(page, f"a commit did not tell of {sorted(set(request.poison) - rejected)}")

    def _complain(self, page: Page, text: str) -> None:
        self.complaints.append(f"{page.request} (attempt {page.attempts}): {text}")

    def expected(self) -> Expected:
        """How often each row must and may be stored, as far as answers tell."""
        size = self.rows
        least, most = np.zeros(size, np.int64), np.zeros(size, np.int64)
        timed, poisoned = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        for page in self.pages:
            request = page.request
            span = slice(request.first, request.first + request.size)
            most[span] = page.fate is not Fate.REFUSED
            least[span] = page.fate is Fate.TAKEN and request.ack is not Ack.QUEUED
            timed[span] = request.timed
            for index in request.spoiled:
                least[request.first + index] = most[request.first + index] = 0
            for index in request.poison:
                poisoned[request.first + index] = True
        return Expected(least, most, timed, poisoned)

    def count(self, fate: Fate) -> int:
        """How many requests met this fate."""
        return sum(page.fate is fate for page in self.pages)

    @property
    def acknowledged_rows(self) -> int:
        """Rows that were answered as taken."""
        return sum(page.request.size - len(page.rejected) for page in self.pages if page.fate is Fate.TAKEN)
