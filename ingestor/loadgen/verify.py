"""Proves against the database that what was acknowledged is stored exactly once, and nothing else.

It trusts no counter of the server, and forgives one thing only: rows whose request got no answer.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg
from pydantic import BaseModel, computed_field

from ingestor.loadgen.check import Check
from ingestor.loadgen.plan import LoadPlan
from ingestor.loadgen.report import LoadReport
from ingestor.loadgen.stored import StoredRows

SETTLE_S = 30.0
POLL_S = 0.2
# Once all are there: how long a row too many is given to show itself.
EXTRA_WAIT_S = 0.3


class Verification(BaseModel):
    """Counts of rows, of one snapshot of the table."""

    acknowledged: int
    stored: int
    missing: int  # acknowledged, not stored
    duplicated: int  # stored again
    wrong: int  # with another time, name or labels than were sent
    extra: int  # refused, rejected or never sent, and stored
    unanswered_stored: int  # allowed
    labels_checked: bool
    waited_s: float
    examples: list[str]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ok(self) -> bool:
        return not (self.missing or self.duplicated or self.wrong or self.extra)


async def verify(
    dsn: str,
    plan: LoadPlan,
    report: LoadReport,
    *,
    settle_s: float = SETTLE_S,
    extra_wait_s: float = EXTRA_WAIT_S,
) -> Verification:
    """Waits up to `settle_s` for the acknowledged rows, then judges; raises what asyncpg raises."""
    assert plan.run_id == report.run_id, "a report of another plan"
    connection = await asyncpg.connect(dsn)
    try:
        rows = StoredRows(connection, plan.run_id)
        labels = plan.labels > 0 and await rows.labels_readable()
        start_s = time.monotonic()
        while True:
            # Counting is cheap and comparing is not; but rows that don't count may make up the number.
            enough = await rows.count() >= report.total.acknowledged
            waited_s = time.monotonic() - start_s
            if enough or waited_s >= settle_s:
                await asyncio.sleep(extra_wait_s)
                check = await _compared(rows, Check(plan, report, labels=labels), labels=labels)
                if check.acknowledged_stored == report.total.acknowledged or waited_s >= settle_s:
                    return _verification(check, report, labels_checked=labels, waited_s=waited_s)
            await asyncio.sleep(POLL_S)
    finally:
        await connection.close()


async def _compared(rows: StoredRows, check: Check, *, labels: bool) -> Check:
    async for page in rows.pages(labels=labels):
        for row in page:
            check.add(*row)
        await asyncio.sleep(0)  # lets Ctrl-C in between pages
    return check


def _verification(check: Check, report: LoadReport, *, labels_checked: bool, waited_s: float) -> Verification:
    missing = report.total.acknowledged - check.acknowledged_stored
    named = [f"missing: metric {seq}" for seq in check.missing()] if missing else []
    return Verification(
        acknowledged=report.total.acknowledged,
        stored=check.stored,
        missing=missing,
        duplicated=check.duplicated,
        wrong=check.wrong,
        extra=check.extra,
        unanswered_stored=check.unanswered_stored,
        labels_checked=labels_checked,
        waited_s=round(waited_s, 3),
        examples=[*named, *check.examples],
    )
