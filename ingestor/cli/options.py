"""What commands have in common: how they are described, what exit codes mean, and a flag for every setting.

Settings are looked at once a command is the one that was given: nobody waits for those of all others.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestor.settings import Settings

EXIT_CODES = """exit codes:
  0    all is well
  1    unexpected failure (demo: not all that was sent is stored; journal verify and export: damaged, or entries are
       missing; dead-letters replay: some were refused again; an output that can't be written)
  2    a flag or setting is wrong
  3    the database can't be reached, refuses us, is read-only, or has a schema that can't be used
  4    a port is taken, or HOST can't be listened on
  5    DATA_DIR can't be used: not writable, in use by another server, or its journal is not ours or another
       database's
  6    stopped, but metrics that were taken are lost (JOURNAL=memory, or queued and the disk failed)
  7    the server can't be reached, or refuses to answer (top, tail)
  129  ended by SIGHUP (a closed terminal); what was begun is undone
  130  the same by Ctrl-C (serve: by a second one, at once)
  143  the same by SIGTERM
SIGTERM, SIGHUP and the first Ctrl-C make serve store what is queued, and end with 0 or 6.
"""

Run = Callable[[dict[str, Any]], int]
"""Does what a command does with what was given, by name; returns its exit code. Raises StartupError."""


class CommandParser(argparse.ArgumentParser):
    """With `settings` it has their flags as well, from the moment in which it parses."""

    def __init__(self, *, settings: bool = False, allow_abbrev: bool = False, **described: Any) -> None:
        super().__init__(
            **described,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=allow_abbrev,
        )
        self._lacks_settings = settings

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As every parser; a command's is asked by the one that it belongs to."""
        if self._lacks_settings:
            _add_settings(self)
            self._lacks_settings = False
        return super().parse_known_args(args, namespace)


def add_command(
    commands: Any, name: str, summary: str, run: Run | None = None, *, settings: bool = False
) -> CommandParser:
    """One that `run` does; without it, one that has actions."""
    command: CommandParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        settings=settings,
    )
    if run is not None:
        command.set_defaults(run=run)
    return command


def add_actions(commands: Any, name: str, about: str) -> Any:
    """A command that consists of actions, to which they are added."""
    return add_command(commands, name, about).add_subparsers(required=True, metavar="ACTION")


def loaded(given: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """The settings, by which from now on is logged, and what else was given. Raises BadSetting."""
    from ingestor.settings import Settings, load
    from ingestor.telemetry import logs

    options = {name: given.pop(name) for name in tuple(given) if name not in Settings.model_fields}
    settings = load(given)
    logs.configure(settings.log_format, settings.log_level)
    return settings, options


def _add_settings(parser: argparse.ArgumentParser) -> None:
    from ingestor.settings import PREFIX, Settings

    group = parser.add_argument_group(
        "settings",
        f"Each is also read from the environment, and from a file .env in the current directory, as {PREFIX}NAME"
        f" ({PREFIX}BATCH_SIZE for --batch-size). Durations read 250ms, 1s, 5m, 2h, 365d; sizes 64KiB, 4MiB.",
    )
    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        text = str(field.description).replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(flag, action="store_const", const=True, default=argparse.SUPPRESS, help=text)
        else:
            default = shown(field.default)
            suffix = f" (default: {default})" if default else ""
            group.add_argument(flag, metavar=name.upper(), default=argparse.SUPPRESS, help=text + suffix)


def shown(default: object) -> str:
    """A default as one would write it; empty when the description says it."""
    from pydantic_core import PydanticUndefined

    if default is PydanticUndefined or not str(default):
        return ""
    if hasattr(default, "human_readable"):
        return str(default.human_readable()).replace(".0", "")
    if hasattr(default, "total_seconds"):
        seconds = default.total_seconds()
        units = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
        size, unit = next(((size, unit) for size, unit in units if seconds % size == 0), (0.001, "ms"))
        return f"{seconds / size:g}{unit}"
    return str(default) if default is not None and not hasattr(default, "get_secret_value") else ""
