"""`ingestor serve`, `migrate` and `check`: the server, and what is done before it starts."""

# ruff: noqa: PLC0415 - what a command does is imported when it is given

from __future__ import annotations

from functools import partial
from typing import Any

from ingestor.cli.options import add_command, loaded


def add(commands: Any) -> None:
    """Adds them, which have nothing but settings."""
    serving = "take metrics until SIGTERM, SIGHUP or Ctrl-C, then store what is queued"
    add_command(commands, "serve", serving, partial(_run, "serve"), settings=True)
    migrating = "bring the database's schema up to date and exit (serve does it, too)"
    add_command(commands, "migrate", migrating, partial(_run, "migrate"), settings=True)
    checking = "validate the settings, try the database and the ports, say what would be used"
    add_command(commands, "check", checking, partial(_run, "check"), settings=True)


def _run(command: str, given: dict[str, Any]) -> int:
    settings, _ = loaded(given)
    from ingestor import commands  # a bad setting need not wait for pyarrow
    from ingestor.cli.running import to_the_end, until_done

    if command == "serve":
        return until_done(commands.serve(settings))
    return to_the_end(getattr(commands, command)(settings))
