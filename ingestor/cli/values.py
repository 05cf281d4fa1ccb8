"""What flags that are no settings may hold. Each refuses what it can't mean in one line, which argparse puts behind
the flag's name."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import UTC, datetime


def whole(text: str) -> int:
    """A number that is not negative."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        msg = "must be a whole number"
        raise ArgumentTypeError(msg)
    return int(text)


def positive(text: str) -> int:
    """How many, or which."""
    number = whole(text)
    if not 1 <= number <= 10_000_000:
        msg = "must lie between 1 and 10,000,000"
        raise ArgumentTypeError(msg)
    return number


def rate(text: str) -> float:
    """So many a second."""
    number = _number(text)
    if not 0.001 <= number <= 1e9:
        msg = "must be a number between 0.001 and 1,000,000,000"
        raise ArgumentTypeError(msg)
    return number


def seconds(text: str) -> float:
    """How long."""
    number = _number(text.removesuffix("s"))
    if not 0.1 <= number <= 3600:
        msg = "must lie between 0.1 and 3600 seconds"
        raise ArgumentTypeError(msg)
    return number


def moment(text: str) -> datetime:
    """When, in UTC unless it says otherwise."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        msg = "must be a time such as 2026-01-02 or 2026-01-02T03:04:05Z"
        raise ArgumentTypeError(msg) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _number(text: str) -> float:
    """0 for what is none, which is refused like one that is too small."""
    try:
        return float(text)
    except ValueError:
        return 0.0
