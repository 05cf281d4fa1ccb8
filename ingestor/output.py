"""Lines on stdout, for commands whose answer they are. Nobody who can't be read to is told that all is well."""

from __future__ import annotations

import os
import sys

from ingestor.errors import StartupError


def say(line: str) -> None:
    """Prints it. Raises StartupError where nobody can read it: a closed pipe, a full disk."""
    try:
        print(line, flush=True)  # noqa: T201
    except OSError as error:
        # What print has kept back would fail again when Python ends.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        msg = f"the output can't be written: {(error.strerror or str(error)).lower()}"
        raise StartupError(msg) from error
