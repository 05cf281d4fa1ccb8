"""The command `ingestor`: serve, migrate, check and demo, with a flag for every setting.

Whatever goes wrong for a reason that an operator can mend is one line on stderr and an exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from pydantic_core import PydanticUndefined

from ingestor import __version__
from ingestor.errors import StartupError
from ingestor.settings import PREFIX, Settings, load
from ingestor.telemetry import logs

EXIT_CODES = """exit codes:
  0    all is well
  1    unexpected failure (demo: what was stored is not what was accepted)
  2    a flag or setting is wrong
  3    the database can't be reached, refuses us, or has a schema that can't be used
  4    a port is taken, or HOST can't be listened on
  5    DATA_DIR can't be used
  6    stopped, but acknowledged metrics could not be stored (JOURNAL=memory)
  130  ended at once by a second Ctrl-C
"""
_SETTINGS_HELP = (
    f"Each is also read from the environment, and from a file .env in the current directory, as {PREFIX}NAME"
    f" ({PREFIX}BATCH_SIZE for --batch-size). Durations read 250ms, 1s, 5m, 2h, 365d; sizes 64KiB, 4MiB."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    given = vars(_parser().parse_args(arguments))
    command = given.pop("command")
    try:
        return _run(command, given)
    except StartupError as error:
        print(f"ingestor: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(command: str, given: dict[str, Any]) -> int:
    if command == "demo":
        from ingestor.demo import demo  # noqa: PLC0415 - only the demo needs rich

        return _with_loop(demo(given["metrics"]))
    settings = load(given)
    logs.configure(settings.log_format, settings.log_level)
    from ingestor import commands  # noqa: PLC0415 - `--help` and a bad setting need not wait for pyarrow

    return _with_loop(getattr(commands, command)(settings))


def _with_loop(main: Coroutine[Any, Any, int]) -> int:
    """Runs it on uvloop where that exists (not every platform has a wheel), else on asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ingestor",
        description="Takes metrics over gRPC and HTTP/JSON and stores them in TimescaleDB or PostgreSQL.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ingestor {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("serve", "take metrics until SIGTERM or Ctrl-C, then store what is queued"),
        ("migrate", "bring the database's schema up to date and exit (serve does it, too)"),
        ("check", "validate the settings, try the database and the ports, say what would be used"),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_settings(command)
    show = "start a server on a temporary database, send it a load, show what was stored"
    command = commands.add_parser("demo", help=show, description=f"{show[0].upper()}{show[1:]}.")
    command.add_argument(
        "--metrics",
        type=_positive,
        default=100_000,
        metavar="N",
        help="how many to send (default: %(default)s)",
    )
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings", _SETTINGS_HELP)
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        text = str(field.description).replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(flag, action="store_const", const=True, default=argparse.SUPPRESS, help=text)
        else:
            shown = _shown(field.default)
            suffix = f" (default: {shown})" if shown else ""
            group.add_argument(flag, metavar=name.upper(), default=argparse.SUPPRESS, help=text + suffix)


def _shown(default: object) -> str:
    """A default as one would write it; empty when the description says it."""
    if default is PydanticUndefined or not str(default):
        return ""
    if hasattr(default, "human_readable"):
        return str(default.human_readable()).replace(".0", "")
    if hasattr(default, "total_seconds"):
        seconds = default.total_seconds()
        units = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
        size, unit = next(((size, unit) for size, unit in units if seconds % size == 0), (0.001, "ms"))
        return f"{seconds / size:g}{unit}"
    return str(default) if not hasattr(default, "get_secret_value") else ""


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        msg = "must lie between 1 and 10,000,000"
        raise argparse.ArgumentTypeError(msg)
    return number
