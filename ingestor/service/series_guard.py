"""Keeps callers within SERIES_PER_HOUR_MAX: rows of new series beyond it are rejected, those of known ones go on.

In a dry run it rejects nothing, and only tells who would be limited. It never logs the names of series: those are
what callers sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from loguru import logger

from ingestor.caller import CALLER, Caller
from ingestor.errors import FieldViolation, TooFast
from ingestor.model import MetricBatch
from ingestor.model.columns import Checked, Rejected
from ingestor.model.series_bound import Claim, Mask, Series, SeriesBound, series_of
from ingestor.telemetry import Telemetry

_TOLD_EVERY_S = 300.0
# A series may be forgotten by then.
_RETRY_AFTER_S = 300.0


class SeriesGuard:
    """`series_max` holds for each key, and for all together where no keys are needed; 0 is no bound. `clock` gives
    seconds."""

    def __init__(
        self,
        series_max: int,
        *,
        dry_run: bool,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bound = SeriesBound(series_max)
        self._dry_run = dry_run
        self._telemetry = telemetry
        self._clock = clock
        self._told_at_s: dict[str, float] = {}

    @property
    def watches(self) -> bool:
        """Whether the caller of this call has a bound."""
        return bool(self._bound.bound(CALLER.get().series_max))

    def within(self, checked: Checked) -> tuple[Checked, Claim | None]:
        """The same without rows beyond the bound, which are rejected, and what is to be given back when it is not
        taken. Raises TooFast when there would be no others, and nothing else is wrong."""
        caller = CALLER.get()
        batch = checked.batch
        if batch is None:
            return checked, None
        good, claim = self._admitted(caller, series_of(batch))
        if good.all():
            return checked, claim
        if not good.any() and not checked.rejected:
            raise TooFast(self._reason(caller), _RETRY_AFTER_S)
        return _without(checked, batch, good, FieldViolation("", self._reason(caller))), claim

    def give_back(self, claim: Claim | None) -> None:
        """Its request was refused for another reason."""
        if claim is not None:
            self._bound.give_back(claim)

    def _admitted(self, caller: Caller, series: Series) -> tuple[Mask, Claim]:
        good, claim = self._bound.admit(caller.id, caller.series_max, series, self._clock())
        if beyond := len(good) - int(np.count_nonzero(good)):
            self._tell(caller, beyond)
            if self._dry_run:
                good[:] = True
        return good, claim

    def _tell(self, caller: Caller, rows: int) -> None:
        self._telemetry.series_limited.labels(caller.id).inc(rows)
        now_s = self._clock()
        if now_s - self._told_at_s.get(caller.id, -_TOLD_EVERY_S) < _TOLD_EVERY_S:
            return
        self._told_at_s[caller.id] = now_s
        logger.bind(key=caller.id or None).warning(
            "more than {} distinct series within an hour {}: metrics of new ones are {}",
            self._bound.bound(caller.series_max),
            "with one key" if caller.id else "without a key",
            "stored all the same (dry run)" if self._dry_run else "rejected",
        )

    def _reason(self, caller: Caller) -> str:
        bound = self._bound.bound(caller.series_max)
        return f"is of a new series, and {bound} were written within an hour: send fewer distinct names and labels"


def _without(checked: Checked, batch: MetricBatch, good: Mask, violation: FieldViolation) -> Checked:
    """`good` counts the batch's rows, positions those of the request."""
    bad = np.array([each.position for each in checked.rejected], np.int64)
    taken = np.setdiff1d(np.arange(len(good) + len(bad)), bad, assume_unique=True)
    beyond = [Rejected(position, [violation]) for position in taken[~good].tolist()]
    rejected = sorted([*checked.rejected, *beyond], key=lambda each: each.position)
    if not good.any():
        return Checked(None, rejected)
    columns = batch.columns.filter(pa.array(good))
    ids = set(columns.column("label_set_id").unique().to_pylist())
    label_sets = {id_: text for id_, text in batch.label_sets.items() if id_ in ids}
    return Checked(MetricBatch.of_columns(columns, label_sets), rejected)
