"""What a row holds, as a function of its number: one that is stored can be checked without a note of what was sent.

A row's number is its value; it decides names, labels and time. It says nothing of who sent the row, or when.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

# Rows that follow one another share a series, sixteen at a time.
SERIES_ROWS = 16
_METRICS, _SERVICES, _LABEL_SETS = 7, 3, 5_000
_WEEK_US = 7 * 86_400 * 1_000_000
# One series in so many is some weeks late, up to so many weeks.
_LATE_ONE_IN, _LATE_WEEKS = 64, 12

WRONG_TEXTS = f"""
SELECT count(*) FROM labeled_metrics, LATERAL (SELECT value::bigint / {SERIES_ROWS} AS series) AS of_row
  WHERE service_name NOT LIKE 'poison-%'
    AND (service_name <> 's' || series % {_SERVICES} OR metric_name <> 'm' || series % {_METRICS}
      OR labels <> CASE WHEN series % 4 = 0 THEN '{{}}'::jsonb
                        ELSE jsonb_build_object('set', (series % {_LABEL_SETS})::text) END)
"""
"""How many stored rows have other names or labels than their number says."""


def service_name(row: int) -> str:
    """The service of row number `row`."""
    return f"s{row // SERIES_ROWS % _SERVICES}"


def metric_name(row: int) -> str:
    """Its metric."""
    return f"m{row // SERIES_ROWS % _METRICS}"


def labels(row: int) -> dict[str, str]:
    """Its labels; one series in four has none, and new sets go on coming."""
    series = row // SERIES_ROWS
    return {"set": str(series % _LABEL_SETS)} if series % 4 else {}


@dataclass(frozen=True, slots=True)
class Times:
    """The rows' times, which lie before `latest_us` (microseconds since 1970, whole milliseconds)."""

    latest_us: int

    def of(self, row: int) -> int:
        """Row number `row`'s, in microseconds."""
        return int(self.latest_us - row % 1_000 * 1_000 - _weeks(row) * _WEEK_US)

    def around(self, row: int, *, timed: bool) -> tuple[datetime, datetime]:
        """Between which moments the stored row lies; the server's clock gives one to a row that has none."""
        if not timed:
            now = datetime.now(UTC)
            return now - timedelta(minutes=5), now + timedelta(minutes=1)
        moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.of(row))
        return moment, moment

    def of_all(self, rows: Ids) -> Ids:
        """The same for many."""
        series = rows // SERIES_ROWS
        weeks = np.where(series % _LATE_ONE_IN == 1, series // _LATE_ONE_IN % _LATE_WEEKS, 0)
        times: Ids = self.latest_us - rows % 1_000 * 1_000 - weeks * _WEEK_US
        return times


def _weeks(row: int) -> int:
    series = row // SERIES_ROWS
    return series // _LATE_ONE_IN % _LATE_WEEKS if series % _LATE_ONE_IN == 1 else 0
