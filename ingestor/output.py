"""Lines on stdout, for commands whose answer they are. Nobody who can't be read to is told that all is well."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ingestor.errors import StartupError

_ESCAPES = "ingestor.escapes"


def say(line: str) -> None:
    """Prints it. Raises StartupError where nobody can read it: a closed pipe, a full disk."""
    with writing():
        print(line, flush=True)  # noqa: T201


@contextmanager
def writing() -> Iterator[None]:
    """Around what writes to stdout, and flushes it. Raises StartupError, from the OSError, where that can't be."""
    try:
        yield
    except OSError as error:
        # What stdout has kept back would fail again when Python ends.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        msg = f"the output can't be written: {(error.strerror or str(error)).lower()}"
        raise StartupError(msg) from error


def escape_the_unencodable() -> None:
    """From now on stdout has as escapes what its encoding lacks, where it would fail: as those of JSON, which can
    then still be read."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error(_ESCAPES, _escaped)
        sys.stdout.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
