"""`ingestor demo`: all of it, watched. It has flags of its own alone: the demo is the same wherever it runs."""

# ruff: noqa: PLC0415 - what a command does is imported when it is given

from __future__ import annotations

from typing import Any

from ingestor.cli.options import add_command
from ingestor.cli.values import positive


def add(commands: Any) -> None:
    """Adds it."""
    command = add_command(
        commands, "demo", "start a server on a temporary database, send it a load, show what was stored", _run
    )
    command.description = f"{command.description} It heeds neither INGESTOR_* nor .env."
    command.add_argument(
        "--metrics",
        type=positive,
        default=100_000,
        metavar="N",
        help="how many to send (default: %(default)s)",
    )
    command.add_argument(
        "--stay",
        action="store_true",
        help="go on afterwards, with a gentle load, and show it on the page, until Ctrl-C",
    )


def _run(given: dict[str, Any]) -> int:
    from ingestor.cli.running import to_the_end
    from ingestor.demo import demo

    return to_the_end(demo(given["metrics"], stay=given["stay"]))
