"""Counts what became of a run's requests while it goes on, per protocol and in total.

It computes no rates and keeps no single answer: messages and reasons only as first seen, and few.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ingestor.loadgen.answers import Answer, Kind
from ingestor.loadgen.latency import Histogram
from ingestor.loadgen.outcomes import Outcomes
from ingestor.loadgen.plan import LoadPlan, Protocol
from ingestor.loadgen.schedule import Request

# A request that starts later than this after its time counts as sent late.
SENT_LATE_S = 0.1
REASONS_MAX = 20


@dataclass(slots=True)
class Counts:
    """Metrics by outcome; `requests`, `retries` and latency (of acknowledged requests) count requests."""

    requests: int = 0
    retries: int = 0
    acknowledged: int = 0
    rejected: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)

    @property
    def sent(self) -> int:
        return self.acknowledged + self.rejected + self.refused.total() + self.unanswered.total()

    def add(self, size: int, answer: Answer, latency_s: float) -> None:
        self.requests += 1
        if answer.kind == Kind.ACKNOWLEDGED:
            self.acknowledged += size - len(answer.rejected)
            self.rejected += len(answer.rejected)
            self.latency.add(latency_s)
        elif answer.kind == Kind.REFUSED:
            self.refused[answer.code] += size
        else:
            self.unanswered[answer.code] += size


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, for whoever shows it."""

    elapsed_s: float
    sent: int
    acknowledged: int
    refused: int
    unanswered: int


class Tally:
    """All that a report is made of."""

    def __init__(self, plan: LoadPlan) -> None:
        self.outcomes = Outcomes(plan.batch)
        self.total = Counts()
        self.protocols: dict[Protocol, Counts] = {protocol: Counts() for protocol in plan.protocols}
        self.messages: dict[str, str] = {}
        self.rejected_reasons: Counter[str] = Counter()
        self.unreachable: dict[Protocol, str] = {}
        self.sent_late = 0
        self.lag_s_max = 0.0

    def started(self, size: int, lag_s: float) -> None:
        """A request is sent `lag_s` after its time."""
        self.lag_s_max = max(self.lag_s_max, lag_s)
        if lag_s > SENT_LATE_S:
            self.sent_late += size

    def retried(self, protocol: Protocol) -> None:
        self.total.retries += 1
        self.protocols[protocol].retries += 1

    def finished(self, protocol: Protocol, request: Request, answer: Answer, latency_s: float) -> None:
        """The request's last answer, or that there was none."""
        self.outcomes.record(request, answer)
        for counts in (self.total, self.protocols[protocol]):
            counts.add(request.size, answer, latency_s)
        if answer.message and len(self.messages) < REASONS_MAX:
            self.messages.setdefault(answer.code, answer.message)
        for _, reason in answer.rejected:
            known = reason in self.rejected_reasons or len(self.rejected_reasons) < REASONS_MAX
            self.rejected_reasons[reason if known else "other reasons"] += 1

    def progress(self, elapsed_s: float) -> Progress:
        total = self.total
        return Progress(
            elapsed_s, total.sent, total.acknowledged, total.refused.total(), total.unanswered.total()
        )
