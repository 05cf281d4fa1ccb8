"""Tracebacks for the log: where it happened and what kind of error it was, and no value that a request carried.

Python's own say the text of each error, which for some kinds is made of the value that was wrong.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from itertools import islice

# What is no number, no key, no UTF-8: their texts quote it.
_QUOTING = (ValueError, LookupError)
_ERRORS_MAX = 10
_LEFT_OUT = "(its text is left out: it may quote a request)"
_BETWEEN = "The next error was raised while that one was handled, or because of it:"


def traceback_of(error: BaseException) -> str:
    """The error with those that led to it, oldest first, as lines."""
    chain = list(islice(_chain(error), _ERRORS_MAX))
    return f"\n{_BETWEEN}\n".join(_one(each) for each in reversed(chain))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _one(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    lines = ["Traceback (most recent call last):", *([frames] if frames else []), _named(error)]
    return "\n".join([*lines, *(_one(each) for each in inner[:_ERRORS_MAX])])


def _named(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # A database's error has the row that it quotes on further lines.
    text = (str(error).splitlines() or [""])[0]
    if text and isinstance(error, _QUOTING) and not isinstance(error, OSError):
        text = _LEFT_OUT
    return f"{name}: {text}" if text else name
