"""Intervals of time as people choose them, and how many of them a range has. Pure, in whole microseconds.

Intervals begin at whole multiples of their length since 1970-01-01 UTC, also before that.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ingestor.timestamps import microseconds

_MICROSECOND = timedelta(microseconds=1)
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_STEPS = [
    timedelta(seconds=seconds)
    for seconds in (
        *(1, 2, 5, 10, 15, 30),
        *(_MINUTE_S * minutes for minutes in (1, 2, 5, 10, 15, 30)),
        *(_HOUR_S * hours for hours in (1, 2, 3, 6, 12)),
        *(_DAY_S * days for days in (1, 2, 7, 14, 30)),
    )
]


def step_for(start: datetime, end: datetime, points_max: int) -> timedelta:
    """The shortest round interval of which the range has no more than so many; at least a second."""
    for step in _STEPS:
        if steps_in(start, end, step) <= points_max:
            return step
    longest = _STEPS[-1]
    times = 1
    while steps_in(start, end, longest * times) > points_max:
        times *= 2
    return longest * times


def steps_in(start: datetime, end: datetime, step: timedelta) -> int:
    """How many intervals the range from `start` until before `end` touches."""
    length = step // _MICROSECOND
    return (microseconds(end) - 1) // length - microseconds(start) // length + 1


def in_words(step: timedelta) -> str:
    """As it is written in JSON: seconds, to the microsecond."""
    micros = step // _MICROSECOND
    return f"{micros / 1_000_000:.6f}".rstrip("0").rstrip(".") + "s"
