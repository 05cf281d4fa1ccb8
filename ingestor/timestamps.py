"""google.protobuf.Timestamp, datetime and microseconds: the three forms of a moment, exactly converted. (And spans
of time, likewise.)

No moment is rounded; what a form can't express ends up where every range check refuses it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# google/protobuf/timestamp.proto: from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z.
SECONDS_MIN, SECONDS_MAX = -62_135_596_800, 253_402_300_799
NANOS_MAX = 999_999_999
# google/protobuf/duration.proto: 10,000 years, either way.
DURATION_SECONDS_MAX = 315_576_000_000


def to_datetime(seconds: int, nanos: int) -> datetime:
    """A Timestamp's fields as a moment in UTC, cut to microseconds.

    What is out of a Timestamp's own range becomes the earliest or latest moment that a datetime can express: no
    sensible range of times contains that.
    """
    if seconds < SECONDS_MIN:
        return datetime.min.replace(tzinfo=UTC)
    if seconds > SECONDS_MAX or not 0 <= nanos <= NANOS_MAX:
        return datetime.max.replace(tzinfo=UTC)
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def from_nanos(nanos: int) -> datetime:
    """Nanoseconds since 1970-01-01 UTC as a moment, cut to microseconds. An int64 always fits."""
    return _EPOCH + timedelta(microseconds=nanos // 1_000)


def from_micros(micros: int) -> datetime:
    """Microseconds since 1970-01-01 UTC as a moment. Raises OverflowError for what no datetime can express."""
    return _EPOCH + timedelta(microseconds=micros)


def to_timedelta(seconds: int, nanos: int) -> timedelta:
    """A Duration's fields as a span of time, cut to microseconds.

    What is out of a Duration's own range becomes the longest span, forwards or backwards: no sensible range of
    spans contains that.
    """
    if abs(seconds) > DURATION_SECONDS_MAX or abs(nanos) > NANOS_MAX:
        return timedelta.max if seconds > 0 or (seconds == 0 and nanos > 0) else timedelta.min
    return timedelta(seconds=seconds, microseconds=int(nanos / 1000))


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC (a float of seconds would round)."""
    return (moment - _EPOCH) // _MICROSECOND
