"""`ingestor keys`: the keys that callers send. A secret is never a flag, nor is it read: it is made and printed."""

# ruff: noqa: PLC0415 - what a command does is imported when it is given

from __future__ import annotations

from functools import partial
from typing import Any

from ingestor.cli.options import CommandParser, add_actions, add_command, loaded
from ingestor.cli.values import positive, rate


def add(commands: Any) -> None:
    """Adds it with its actions."""
    about = "the keys that callers send, in KEYS_FILE: make, list and revoke them; a running server notices"
    actions = add_actions(commands, "keys", about)
    making = (
        "make a key, and print its secret, which nobody can ever be told again; with the first one keys are"
        " needed"
    )
    _describe(add_command(actions, "create", making, partial(_run, "create"), settings=True))
    listing = "print all keys with their state, never a secret"
    listed = add_command(actions, "list", listing, partial(_run, "list_"), settings=True)
    listed.add_argument("--json", dest="as_json", action="store_true", help="as lines of JSON")
    revoking = "end a key's validity; servers notice within seconds"
    add_command(actions, "revoke", revoking, partial(_run, "revoke"), settings=True).add_argument(
        "id_", metavar="ID"
    )


def _describe(create: CommandParser) -> None:
    create.add_argument("name", metavar="NAME", help="who will use it")
    create.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        metavar="SCOPE",
        help="what it allows: write, write:PREFIX (only services whose names begin so), read, read:PREFIX, admin;"
        " may be repeated",
    )
    create.add_argument(
        "--expires-in",
        dest="expires_in",
        metavar="DURATION",
        help="for how long, such as 90d (default: for ever)",
    )
    create.add_argument(
        "--replacing",
        metavar="ID",
        help="be the same caller as this key, with its scopes and rates; both are valid until that one is revoked",
    )
    create.add_argument("--requests-per-s", type=rate, metavar="N", help="requests a second at most")
    create.add_argument("--metrics-per-s", type=rate, metavar="N", help="metrics a second at most")
    create.add_argument(
        "--series-per-hour", type=positive, metavar="N", help="in place of SERIES_PER_HOUR_MAX"
    )
    create.add_argument(
        "--certificate-name",
        dest="certificate_names",
        action="append",
        metavar="NAME",
        help="a name (DNS or URI; common where there is no other) in client certificates that stand for the key;"
        " may be repeated",
    )


def _run(action: str, given: dict[str, Any]) -> int:
    settings, options = loaded(given)
    from ingestor import keys_commands

    code: int = getattr(keys_commands, action)(settings, **options)
    return code
