"""`ingestor journal`: what is in DATA_DIR. But for `adopt` it changes nothing, and a server may run meanwhile."""

# ruff: noqa: PLC0415 - what a command does is imported when it is given

from __future__ import annotations

from functools import partial
from typing import Any

from ingestor.cli.options import add_actions, add_command, loaded
from ingestor.cli.values import whole


def add(commands: Any) -> None:
    """Adds it with its actions."""
    about = "look into the disk journal in DATA_DIR, which may be in use; or give it to another database"
    actions = add_actions(commands, "journal", about)
    telling = "say what is in it: positions, what is pending, what is damaged"
    status = add_command(actions, "status", telling, partial(_run, "status"), settings=True)
    status.add_argument("--json", dest="as_json", action="store_true", help="as one JSON object")
    reading = "read all of it, and exit with 1 when anything is damaged or missing"
    add_command(actions, "verify", reading, partial(_run, "verify"), settings=True)
    exporting = "print its metrics as lines of JSON, each of which can be sent to /v1/metrics:batch"
    exported = add_command(actions, "export", exporting, partial(_run, "exported"), settings=True)
    exported.add_argument("--after", type=whole, metavar="POSITION", help="only entries behind this one")
    exported.add_argument(
        "--pending", action="store_true", help="only what is not known to be committed (a little more may be)"
    )
    giving = "give it to the database that DATABASE_URL names; no server may use it meanwhile"
    add_command(actions, "adopt", giving, partial(_run, "adopt"), settings=True)


def _run(action: str, given: dict[str, Any]) -> int:
    settings, options = loaded(given)
    from ingestor import journal_commands

    if action == "adopt":
        from ingestor.cli.running import to_the_end

        return to_the_end(journal_commands.adopt(settings))
    code: int = getattr(journal_commands, action)(settings, **options)
    return code
