"""The table `metric_series`: a series is in it as soon as a row of it is, in the same transaction.

Its times are written at most every few seconds a series, since most batches move those of every series: what is
behind by then is remembered, and written with a later batch or by `catch_up`. It never says more than is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ingestor.model.spans import SeriesKey, Span, Spans
from ingestor.storage.transactions import AnyConnection
from ingestor.timestamps import from_micros

LAG_S = 5.0
"""How long the times of a series that is known stay as they are."""

_REMEMBERED_MAX = 200_000
# In one statement: the event loop stands still while it is encoded.
_WRITTEN_MAX = 5_000

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


class Due(NamedTuple):
    """What a transaction has to write, and what may wait although its rows are stored by it."""

    written: dict[SeriesKey, Span]
    behind: dict[SeriesKey, Span]


class Catalogue:
    """What the table is known to say. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[SeriesKey, tuple[Span, float]] = {}
        self._behind: dict[SeriesKey, Span] = {}

    def due(self, spans: Spans) -> Due:
        """For a transaction that stores rows with these spans."""
        now_s = self._clock()
        written: dict[SeriesKey, Span] = {}
        behind: dict[SeriesKey, Span] = {}
        for key, span in spans.items():
            known = self._known.get(key)
            if known is None:
                written[key] = span.with_(self._behind.get(key))
            elif not known[0].holds(span):
                late = now_s - known[1] >= LAG_S
                (written if late else behind)[key] = span.with_(self._behind.get(key))
        return Due(written, behind)

    async def write(self, connection: AnyConnection, written: Spans) -> None:
        """On this connection, as part of its transaction."""
        keys = sorted(written)
        for start in range(0, len(keys), _WRITTEN_MAX):
            some = keys[start : start + _WRITTEN_MAX]
            services, metrics = ([key[part] for key in some] for part in (0, 1))
            firsts, lasts = ([from_micros(written[key][part]) for key in some] for part in (0, 1))
            await connection.execute(_WRITE, services, metrics, firsts, lasts)

    def committed(self, due: Due) -> None:
        """The transaction was."""
        now_s = self._clock()
        if len(self._known) + len(due.written) > _REMEMBERED_MAX:
            self._known.clear()
        for key, span in due.written.items():
            known = self._known.get(key)
            self._known[key] = (span if known is None else known[0].with_(span), now_s)
            if (behind := self._behind.get(key)) is not None and span.holds(behind):
                del self._behind[key]
        for key, span in due.behind.items():
            self._behind[key] = span.with_(self._behind.get(key))

    def overdue(self, *, all_: bool = False) -> Due:
        """What has been behind for long, or all that is, without rows of its own."""
        now_s = self._clock()
        late = {
            key: span
            for key, span in self._behind.items()
            if all_ or key not in self._known or now_s - self._known[key][1] >= LAG_S
        }
        return Due(late, {})

    def forget(self) -> None:
        """Nothing is known to be in the table."""
        self._known.clear()
