"""Compares stored rows with what was sent, one by one and in any order.

It needs no database and keeps a bit a row, besides the first few examples of what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any

from ingestor.loadgen.answers import Kind
from ingestor.loadgen.outcomes import SeqSet
from ingestor.loadgen.plan import LoadPlan
from ingestor.loadgen.report import LoadReport
from ingestor.loadgen.rows import Rows

EXAMPLES_MAX = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Check:
    """Give it every row, then read its counts."""

    def __init__(self, plan: LoadPlan, report: LoadReport, *, labels: bool = False) -> None:
        self.stored = 0
        self.acknowledged_stored = 0
        self.unanswered_stored = 0
        self.duplicated = 0
        self.wrong = 0
        self.extra = 0
        self.examples: list[str] = []
        self._labels = labels
        self._rows = Rows(plan, report.started_us)
        self._outcomes = report.outcomes
        self._seen = SeqSet()

    def add(
        self, time: Any, service_name: str, metric_name: str, value: Any, labels: str | None = None
    ) -> None:
        """One stored row; `labels` is JSON text, and counts only if this check is one of labels too."""
        self.stored += 1
        seq = int(value) if isinstance(value, float) and value.is_integer() else -1
        kind = self._outcomes.of(seq)
        if kind not in (Kind.ACKNOWLEDGED, Kind.UNANSWERED):
            self.extra += 1
            self._example(f"extra: {service_name} {metric_name} {value} ({_why_extra(seq, kind)})")
            return
        if not self._seen.add(seq):
            self.duplicated += 1
            self._example(f"duplicated: metric {seq}")
        elif kind == Kind.ACKNOWLEDGED:
            self.acknowledged_stored += 1
        else:
            self.unanswered_stored += 1
        self._compare(seq, (time, service_name, metric_name), labels)

    def missing(self) -> Sequence[int]:
        """The first acknowledged metrics that no row was seen of."""
        acknowledged = (
            seq for seq in range(self._outcomes.end) if self._outcomes.of(seq) == Kind.ACKNOWLEDGED
        )
        return list(islice((seq for seq in acknowledged if seq not in self._seen), EXAMPLES_MAX))

    def _compare(self, seq: int, stored: tuple[Any, str, str], labels: str | None) -> None:
        index, time_us = self._rows.place(seq)
        series = self._rows.series[index]
        sent = (_EPOCH + timedelta(microseconds=time_us), series.service_name, series.metric_name)
        if stored != sent:
            self.wrong += 1
            self._example(f"wrong: metric {seq} is stored as {_text(stored)}, was sent as {_text(sent)}")
        elif self._labels and (labels is None or _parsed(labels) != series.labels):
            self.wrong += 1
            self._example(
                f"wrong: metric {seq} is stored with labels {labels}, was sent with {series.labels}"
            )

    def _example(self, text: str) -> None:
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(text)


def _why_extra(seq: int, kind: int) -> str:
    return f"its request was {Kind(kind).name.lower()}" if seq >= 0 and kind else "never sent"


def _text(row: tuple[Any, str, str]) -> str:
    return " ".join(map(str, row))


@lru_cache(4096)
def _parsed(labels: str) -> Any:
    return json.loads(labels)
