"""The table `metric_series`: a series is in it as soon as a row of it is, in the same transaction.

Its times are written at most every few seconds a series, since most batches move those of every series: what is
behind by then is remembered, and written with a later batch or by `catch_up`. It never says more than is stored.

What is known of series is columns, too, and a series is a number here: ten thousand of them in each batch would
otherwise hold the event loop for as long as the batch itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ingestor.model.spans import Spans
from ingestor.storage.transactions import AnyConnection
from ingestor.timestamps import from_micros

LAG_S = 5.0
"""How long the times of a series that is known stay as they are."""

# Together with those that are behind, which `catch_up` writes every few seconds.
_REMEMBERED_MAX = 200_000
WRITTEN_MAX = 5_000
"""In one statement: the event loop stands still while it is encoded."""

# In the order of the key, also from statement to statement, so that two gateways which write the same series can't
# deadlock.
_WRITE = """
INSERT INTO metric_series AS known (service_name, metric_name, first_time, last_time)
  SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
      AS new (service, metric, first, last)
    ORDER BY service COLLATE "C", metric COLLATE "C"
  ON CONFLICT (service_name, metric_name) DO UPDATE
    SET first_time = least(known.first_time, excluded.first_time),
        last_time = greatest(known.last_time, excluded.last_time)
    WHERE known.first_time > excluded.first_time OR known.last_time < excluded.last_time
"""

_Numbers = npt.NDArray[np.int64]
# Of one series: what the table is known to say, when that was written (seconds), and what it is behind with. A span
# that ends before it begins is none, and any other together with it is the other.
_SERIES = np.dtype(
    [
        ("first_us", "i8"),
        ("last_us", "i8"),
        ("written_at_s", "f8"),
        ("behind_first_us", "i8"),
        ("behind_last_us", "i8"),
    ]
)
_LIMITS = np.iinfo(np.int64)
_UNKNOWN = np.array((_LIMITS.max, _LIMITS.min, -np.inf, _LIMITS.max, _LIMITS.min), _SERIES)


class Due(NamedTuple):
    """What a transaction has to write, and what may wait although its rows are stored by it."""

    written: Spans
    behind: Spans


class Catalogue:
    """What the table is known to say. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._series = np.full(0, _UNKNOWN)
        self._names_max = _REMEMBERED_MAX

    def due(self, spans: Spans) -> Due:
        """For a transaction that stores rows with these spans."""
        numbers = self._numbers_of(spans.names)
        of = self._series[numbers]
        outside = (spans.first_us < of["first_us"]) | (spans.last_us > of["last_us"])
        late = self._clock() - of["written_at_s"] >= LAG_S
        both = Spans(
            spans.names,
            np.minimum(spans.first_us, of["behind_first_us"]),
            np.maximum(spans.last_us, of["behind_last_us"]),
        )
        return Due(both.at(np.flatnonzero(outside & late)), both.at(np.flatnonzero(outside & ~late)))

    async def write(self, connection: AnyConnection, written: Spans) -> None:
        """On this connection, as part of its transaction."""
        names = written.names
        places = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        for start in range(0, len(names), WRITTEN_MAX):
            some = written.at(places[start : start + WRITTEN_MAX])
            services, metrics = zip(*some.keys(), strict=True)
            firsts, lasts = (
                [from_micros(time_us) for time_us in times_us.tolist()]
                for times_us in (some.first_us, some.last_us)
            )
            await connection.execute(_WRITE, services, metrics, firsts, lasts)

    def committed(self, due: Due) -> None:
        """The transaction was."""
        written, behind = due
        if len(written):
            numbers = self._numbers_of(written.names)
            of = self._series[numbers]
            of["first_us"] = np.minimum(of["first_us"], written.first_us)
            of["last_us"] = np.maximum(of["last_us"], written.last_us)
            of["written_at_s"] = self._clock()
            # More may have been stored since it was decided what to write.
            done = (of["behind_first_us"] >= written.first_us) & (of["behind_last_us"] <= written.last_us)
            for name in ("behind_first_us", "behind_last_us"):
                of[name][done] = _UNKNOWN[name]
            self._series[numbers] = of
        if len(behind):
            numbers = self._numbers_of(behind.names)
            of = self._series[numbers]
            of["behind_first_us"] = np.minimum(of["behind_first_us"], behind.first_us)
            of["behind_last_us"] = np.maximum(of["behind_last_us"], behind.last_us)
            self._series[numbers] = of

    def overdue(self, *, all_: bool = False) -> Due:
        """What has been behind for long, or all that is, without rows of its own."""
        series = self._series[: len(self._names)]
        late = self._clock() - series["written_at_s"] >= LAG_S
        places = np.flatnonzero(_is_behind(series) & (late | all_))
        spans = Spans(self._names, series["behind_first_us"], series["behind_last_us"])
        return Due(spans.at(places), Spans.of({}))

    def forget(self) -> None:
        """Nothing is known to be in the table."""
        for name in ("first_us", "last_us", "written_at_s"):
            self._series[name] = _UNKNOWN[name]

    def _numbers_of(self, names: list[str]) -> _Numbers:
        """Those of these series; who has none gets one."""
        numbers = list(map(self._numbers.get, names))
        if None in numbers:
            if len(self._names) + numbers.count(None) > self._names_max:
                self._forget_names()
            for name in names:
                if name not in self._numbers:
                    self._numbers[name] = len(self._names)
                    self._names.append(name)
            if (missing := len(self._names) - len(self._series)) > 0:
                more = np.full(max(missing, len(self._series)), _UNKNOWN)
                self._series = np.concatenate([self._series, more])
            numbers = list(map(self._numbers.get, names))
        return np.array(numbers, np.int64)

    def _forget_names(self) -> None:
        """All but those of series that are behind, which is still to be written; they may be many for a moment."""
        kept = np.flatnonzero(_is_behind(self._series[: len(self._names)]))
        self._names = [self._names[number] for number in kept.tolist()]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._series = self._series[kept]
        self._names_max = max(_REMEMBERED_MAX, 2 * len(self._names))


def _is_behind(series: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    behind: npt.NDArray[np.bool_] = series["behind_first_us"] <= series["behind_last_us"]
    return behind
