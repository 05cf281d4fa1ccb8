"""`ingestor top` and `tail`, which ask a running server. Its settings are not theirs; a key comes from the
environment, and never from a flag, which others would see."""

# ruff: noqa: PLC0415 - what a command does is imported when it is given

from __future__ import annotations

import os
from typing import Any

from ingestor.cli.options import CommandParser, add_command
from ingestor.cli.values import seconds


def add(commands: Any) -> None:
    """Adds them."""
    showing = "show a running server's rates, latency and services; once where stdout is no terminal"
    top = add_command(commands, "top", showing, _top)
    top.add_argument(
        "--every",
        dest="every_s",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="how often (default: 2)",
    )
    _add_address(top)
    tail = add_command(commands, "tail", "print metrics as a running server commits them", _tail)
    tail.add_argument("--service", default="", metavar="NAME", help="only those of this service")
    tail.add_argument("--metric", default="", metavar="NAME", help="only those of this name")
    tail.add_argument("--json", dest="as_json", action="store_true", help="as lines of JSON")
    _add_address(tail)


def _add_address(client: CommandParser) -> None:
    client.add_argument(
        "--address",
        default="http://127.0.0.1:8080",
        metavar="URL",
        help="the server's HTTP side (default: %(default)s); a key comes from the variable INGESTOR_KEY",
    )


def _top(given: dict[str, Any]) -> int:
    from ingestor.cli.running import to_the_end
    from ingestor.terminal.top import top

    return to_the_end(top(given["address"], _key(), given["every_s"]))


def _tail(given: dict[str, Any]) -> int:
    from ingestor.cli.running import to_the_end
    from ingestor.terminal.tail import tail

    return to_the_end(tail(key=_key(), **given))


def _key() -> str | None:
    return os.environ.get("INGESTOR_KEY")
