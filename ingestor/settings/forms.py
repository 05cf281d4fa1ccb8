"""The forms that settings have: types that read what people write, and say what is wrong with it.

Each looks at one value alone, and takes none that could mean two things; what fits together is for `Settings`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ByteSize

TIME_MAX = "36500d"
METRIC_BYTES_MAX = 64 * 1024

# As browsers send it: lower case, and never with a path.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> object:
    """`250ms`, `1s`, `5m`, `2h`, `365d`, sums such as `1h30m`, and a bare 0. Raises ValueError."""
    return _duration(value) if isinstance(value, str) else value


def _duration(written: str) -> timedelta:
    text = written.strip()
    if text == "0":
        return timedelta(0)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        msg = f"{written!r} is not a duration: write it like 250ms, 1s, 5m, 2h or 365d"
        raise ValueError(msg)
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if seconds > timedelta.max.total_seconds() / 1000:
        msg = f"{written!r} is too long"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


def between(least: str, most: str, *, or_0: bool = False) -> AfterValidator:
    """For `Duration`s that lie between these two, or are 0 if that is said."""
    at_least, at_most = _duration(least), _duration(most)

    def check(value: timedelta) -> timedelta:
        if not at_least <= value <= at_most and not (or_0 and not value):
            msg = f"must lie between {least} and {most}{', or be 0' if or_0 else ''}"
            raise ValueError(msg)
        return value

    return AfterValidator(check)


def at_most(most: str) -> AfterValidator:
    """For `Duration`s that have no other bound."""
    longest = _duration(most)

    def check(value: timedelta) -> timedelta:
        if value > longest:
            msg = f"must be {most} at most"
            raise ValueError(msg)
        return value

    return AfterValidator(check)


def _room_for_a_metric(value: ByteSize) -> ByteSize:
    if value < METRIC_BYTES_MAX:
        msg = f"must be at least {METRIC_BYTES_MAX // 1024}KiB, the size of the largest metric"
        raise ValueError(msg)
    return value


def _bare_host(value: str) -> str:
    host = value.strip().removeprefix("[").removesuffix("]")
    if not host:
        msg = "must be an address or a name"
        raise ValueError(msg)
    return host


def _origins(value: str) -> str:
    origins = [each for part in value.split(",") if (each := part.strip())]
    for origin in origins:
        if origin != "*" and _ORIGIN.fullmatch(origin) is None:
            msg = f"{origin!r} is no origin: write it like https://example.org or http://localhost:3000, or *"
            raise ValueError(msg)
    return ",".join(origins)


def _directory(value: object) -> object:
    return _path(value, "must name a directory")


def _file(value: object) -> object:
    return _path(value, "must name a file")


def _path(value: object, told_when_empty: str) -> object:
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError(told_when_empty)
    try:
        return Path(value).expanduser()
    except RuntimeError:
        msg = "names the home directory of a user that does not exist"
        raise ValueError(msg) from None


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
RoomForAMetric = Annotated[ByteSize, AfterValidator(_room_for_a_metric)]
Host = Annotated[str, AfterValidator(_bare_host)]
Origins = Annotated[str, AfterValidator(_origins)]
DirectoryPath = Annotated[Path, BeforeValidator(_directory)]
FilePath = Annotated[Path | None, BeforeValidator(_file)]
ANY_CASE = BeforeValidator(_upper)
