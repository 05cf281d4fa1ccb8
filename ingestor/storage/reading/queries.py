"""The statements of the read side. What callers say is never part of their text.

Intervals begin at whole multiples of their length since 1970-01-01 UTC in both databases, so that both give the
same points.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingestor.model.questions import Aggregation

DATE_BIN = "date_bin($5::interval, time, 'epoch'::timestamptz)"
TIME_BUCKET = "{schema}.time_bucket($5::interval, time, 'epoch'::timestamptz)"
"""The beginning of a row's interval, in PostgreSQL and in TimescaleDB, whose own it is that its planner knows."""

POINTS = """
SELECT array_send(array_agg(begins)), array_send(array_agg(value)) FROM (
  SELECT {bucket}, {aggregate} FROM metrics
    WHERE service_name = $1 AND metric_name = $2 AND time >= $3 AND time < $4 AND value IS NOT NULL {labels}
    GROUP BY 1 ORDER BY 1
) AS points (begins, value)
"""
"""All points in one row, as two arrays in the server's binary format: a row each would cost ten times as much."""

AGGREGATES: Mapping[Aggregation, str] = {
    # avg() sums squares, too, which leave a double's range long before the mean does.
    "avg": "sum(value) / count(*)",
    "min": "min(value)",
    "max": "max(value)",
    "sum": "sum(value)",
    "count": "count(*)::float8",
    # Of several rows of one moment always the same one.
    "last": "(array_agg(value ORDER BY time DESC, value DESC))[1]",
    "p50": "percentile_cont(0.5) WITHIN GROUP (ORDER BY value)",
    "p95": "percentile_cont(0.95) WITHIN GROUP (ORDER BY value)",
    "p99": "percentile_cont(0.99) WITHIN GROUP (ORDER BY value)",
}

LABEL_SETS = "SELECT id FROM label_sets WHERE labels @> $1::jsonb LIMIT $2"
LABELS_BY_ID = "AND label_set_id = ANY ($6::bigint[])"
LABELS_JOINED = "AND label_set_id IN (SELECT id FROM label_sets WHERE labels @> $6::jsonb)"

SERIES = """
SELECT service_name, metric_name, first_time, last_time FROM metric_series
  WHERE service_name LIKE $1 AND metric_name LIKE $2 AND service_name LIKE ANY ($3::text[])
    AND (service_name, metric_name) > ($4, $5)
  ORDER BY service_name, metric_name LIMIT $6
"""


def beginning(prefix: str) -> str:
    """The LIKE pattern of what begins so."""
    for special in "\\%_":
        prefix = prefix.replace(special, f"\\{special}")
    return f"{prefix}%"
