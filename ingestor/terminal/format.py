"""Numbers with their units, and texts of callers, as a terminal shows them."""

from __future__ import annotations

_DAY_S = 86_400.0
_THOUSANDS = ((1e9, "G"), (1e6, "M"))
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def plain(text: str) -> str:
    """On one line, with escapes for what moves a cursor, turns the direction of writing, or can't be seen."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def count(value: float | None) -> str:
    """`12,345`, `1.23 M`; a dash for what can't be told."""
    if value is None:
        return "-"
    for size, letter in _THOUSANDS:
        if value >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def rate(value: float | None) -> str:
    """`12,345/s`."""
    return "-" if value is None else f"{count(value)}/s"


def seconds(value: float | None) -> str:
    """`12.5 ms`, `3.2 s`, `4 min`."""
    if value is None:
        return "-"
    for below, size, unit in (
        (1e-3, 1e-6, "us"),
        (1.0, 1e-3, "ms"),
        (120.0, 1.0, "s"),
        (7200.0, 60.0, "min"),
    ):
        if value < below:
            return f"{value / size:.3g} {unit}" if value else "0 s"
    return f"{value / 3600:.3g} h" if value < 2 * _DAY_S else f"{value / _DAY_S:.3g} d"


def size(value: float | None) -> str:
    """`7.3 MiB`."""
    if value is None:
        return "-"
    step = 0
    while value >= 1024 and step < len(_BYTES) - 1:
        value, step = value / 1024, step + 1
    return f"{value:.3g} {_BYTES[step]}"
