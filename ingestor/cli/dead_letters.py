"""`ingestor dead-letters`: metrics that the database refused. What changes them takes ids, or has to be told that
all are meant."""

# ruff: noqa: PLC0415 - what a command does is imported when it is given

from __future__ import annotations

from functools import partial
from typing import Any

from ingestor.cli.options import CommandParser, add_actions, add_command, loaded
from ingestor.cli.values import moment, positive


def add(commands: Any) -> None:
    """Adds it with its actions."""
    about = "metrics that the database refused: look at them, store them again, or delete them"
    actions = add_actions(commands, "dead-letters", about)
    listed = add_command(actions, "list", "print the newest", partial(_run, "list_"), settings=True)
    listed.add_argument("--limit", type=positive, default=50, metavar="N", help="at most so many (50)")
    listed.add_argument("--service", metavar="NAME", help="only those of this service")
    listed.add_argument(
        "--since", type=moment, metavar="TIME", help="only those refused since, such as 2026-01-02T03:04Z"
    )
    listed.add_argument("--json", dest="as_json", action="store_true", help="as lines of JSON")
    shown = add_command(
        actions, "show", "print one with everything that is known of it", partial(_run, "show"), settings=True
    )
    shown.add_argument("id_", type=positive, metavar="ID")
    storing = "store them again; those that are refused again stay (exit code 1)"
    _add_choice(add_command(actions, "replay", storing, partial(_run, "replay"), settings=True))
    purged = add_command(actions, "purge", "delete them for good", partial(_run, "purge"), settings=True)
    _add_choice(purged)
    purged.add_argument("--before", type=moment, metavar="TIME", help="with --all: only those refused before")
    purged.add_argument("--yes", dest="sure", action="store_true", help="without being asked")


def _add_choice(command: CommandParser) -> None:
    command.add_argument("ids", nargs="*", type=positive, metavar="ID")
    command.add_argument("--all", dest="all_", action="store_true", help="all of them, in place of ids")
    command.add_argument("--service", metavar="NAME", help="with --all: only those of this service")


def _run(action: str, given: dict[str, Any]) -> int:
    settings, options = loaded(given)
    from ingestor import dead_letters
    from ingestor.cli.running import to_the_end

    return to_the_end(getattr(dead_letters, action)(settings, **options))
