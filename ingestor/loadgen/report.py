"""The result of a run as one value that can be printed, or written as JSON.

It states counts and never judges them: whether what was acknowledged is stored is for `verify` to say.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ingestor.loadgen.latency import Histogram
from ingestor.loadgen.outcomes import Outcomes
from ingestor.loadgen.plan import LoadPlan, Protocol
from ingestor.loadgen.tally import Counts, Tally


class Latency(BaseModel):
    """Of acknowledged requests, with waits for a connection and retries; with a rate, from when it was due."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class Results(BaseModel):
    """Counts of metrics; sent = acknowledged + rejected + refused + unanswered."""

    requests: int
    retries: int
    sent: int
    acknowledged: int
    rejected: int
    refused: dict[str, int]  # by gRPC code: nothing of the request was taken
    unanswered: dict[str, int]  # by reason or code: may be stored or not
    metrics_per_s: float  # acknowledged ones
    requests_per_s: float
    latency: Latency | None


class LoadReport(BaseModel):
    """What happened. `outcomes` is what `verify` needs, and is left out of the JSON."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    run_id: str
    started_us: int
    elapsed_s: float
    interrupted: bool
    unreachable: dict[Protocol, str]
    planned: int | None
    unsent: int  # planned, but never sent
    sent_late: int  # with a rate: sent more than 100 ms after their time
    lag_ms_max: float
    total: Results
    protocols: dict[Protocol, Results]
    messages: dict[str, str]  # the first message of each code
    rejected_reasons: dict[str, int]
    outcomes: Outcomes = Field(exclude=True, repr=False)


def report_of(
    plan: LoadPlan, tally: Tally, *, started_us: int, elapsed_s: float, interrupted: bool
) -> LoadReport:
    """Closes the books of a run."""
    planned = plan.metrics_planned
    return LoadReport(
        run_id=plan.run_id,
        started_us=started_us,
        elapsed_s=round(elapsed_s, 6),
        interrupted=interrupted,
        unreachable=tally.unreachable,
        planned=planned,
        unsent=0 if planned is None else planned - tally.total.sent,
        sent_late=tally.sent_late,
        lag_ms_max=_milliseconds(tally.lag_s_max),
        total=_results(tally.total, elapsed_s),
        protocols={protocol: _results(counts, elapsed_s) for protocol, counts in tally.protocols.items()},
        messages=tally.messages,
        rejected_reasons=dict(tally.rejected_reasons),
        outcomes=tally.outcomes,
    )


def _results(counts: Counts, elapsed_s: float) -> Results:
    return Results(
        requests=counts.requests,
        retries=counts.retries,
        sent=counts.sent,
        acknowledged=counts.acknowledged,
        rejected=counts.rejected,
        refused=dict(counts.refused),
        unanswered=dict(counts.unanswered),
        metrics_per_s=round(counts.acknowledged / elapsed_s, 1),
        requests_per_s=round(counts.requests / elapsed_s, 1),
        latency=_latency(counts.latency),
    )


def _latency(histogram: Histogram) -> Latency | None:
    quantiles = [histogram.quantile_s(quantile) for quantile in (0.5, 0.95, 0.99)]
    p50, p95, p99 = (None if value is None else _milliseconds(value) for value in quantiles)
    if p50 is None or p95 is None or p99 is None:
        return None
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=_milliseconds(histogram.max_s))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
