"""The command `ingestor`: serve, migrate, check, keys, journal, dead-letters, top, tail and demo, with a flag for
every setting.

Whatever goes wrong for a reason that an operator can mend is one line on stderr and an exit code. The module
imports next to nothing, because a Ctrl-C while others are imported is no reason for a traceback either.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Coroutine, Sequence
    from datetime import datetime
    from typing import Any

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
  6    stopped, but acknowledged metrics are lost (JOURNAL=memory, or queued and the disk failed)
  7    the server can't be reached, or refuses to answer (top, tail)
  129  ended by SIGHUP (a closed terminal); what was begun is undone
  130  the same by Ctrl-C (serve: by a second one, at once)
  143  the same by SIGTERM
SIGTERM, SIGHUP and the first Ctrl-C make serve store what is queued, and end with 0 or 6.
"""
_CLEANUP_S_MAX = 75.0  # twice an embedded database's longest end, and some


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # Until a loop handles signals nothing is begun that had to be undone.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        return _main(arguments)
    except KeyboardInterrupt:
        return 130


def _main(arguments: Sequence[str] | None) -> int:
    from ingestor.errors import StartupError

    given = vars(_parser().parse_args(arguments))
    command = given.pop("command")
    try:
        return _run(command, given)
    except StartupError as error:
        print(f"ingestor: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def _run(command: str, given: dict[str, Any]) -> int:
    if command == "demo":
        from ingestor.demo import demo

        return _with_loop(_until_signalled(demo(given["metrics"], stay=given["stay"])))
    if command in ("top", "tail"):
        return _run_client(command, given)
    from ingestor.settings import Settings, load
    from ingestor.telemetry import logs

    options = {name: given.pop(name) for name in tuple(given) if name not in Settings.model_fields}
    settings = load(given)
    logs.configure(settings.log_format, settings.log_level)
    if command in ("keys", "journal", "dead-letters"):
        return _run_action(command, settings, options)
    from ingestor import commands  # a bad setting need not wait for pyarrow

    work = getattr(commands, command)(settings)
    return _with_loop(work if command == "serve" else _until_signalled(work))


def _run_client(command: str, given: dict[str, Any]) -> int:
    """The commands that ask a server: its settings are not theirs."""
    import os

    key = os.environ.get("INGESTOR_KEY")  # never a flag, which others would see
    if command == "top":
        from ingestor.terminal.top import top

        return _with_loop(_until_signalled(top(given["address"], key, given["every_s"])))
    from ingestor.terminal.tail import tail

    return _with_loop(_until_signalled(tail(key=key, **given)))


def _run_action(command: str, settings: Settings, options: dict[str, Any]) -> int:
    """`ingestor keys ACTION`, `ingestor journal ACTION` and `ingestor dead-letters ACTION`."""
    action = options.pop("action")
    code: int
    if command == "keys":
        from ingestor import keys_commands

        code = getattr(keys_commands, action)(settings, **options)
        return code
    if command == "dead-letters":
        from ingestor import dead_letters

        return _with_loop(_until_signalled(getattr(dead_letters, action)(settings, **options)))
    from ingestor import journal_commands

    if action == "adopt":
        return _with_loop(_until_signalled(journal_commands.adopt(settings)))
    code = getattr(journal_commands, action)(settings, **options)
    return code


async def _until_signalled(work: Coroutine[Any, Any, int]) -> int:
    """Runs it; the first SIGINT, SIGTERM or SIGHUP cancels it, those after that change nothing until it has
    cleaned up. Returns its exit code, or 128 and the signal's number."""
    import asyncio
    import os
    import signal

    received: list[int] = []
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)

    def on_signal(number: int) -> None:
        if not received:
            received.append(number)
            loop.call_later(_CLEANUP_S_MAX, os._exit, 128 + number)
            task.cancel()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what nohup is for
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]
    finally:
        for number in numbers if received else ():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # all is undone; Python's own end need not be disturbed


def _with_loop(main: Coroutine[Any, Any, int]) -> int:
    """Runs it on uvloop where that exists (not every platform has a wheel), else on asyncio's own loop."""
    import asyncio

    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _parser() -> argparse.ArgumentParser:
    import argparse

    from ingestor import __version__

    parser = argparse.ArgumentParser(
        prog="ingestor",
        description="Takes metrics over gRPC and HTTP/JSON and stores them in TimescaleDB or PostgreSQL.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ingestor {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("serve", "take metrics until SIGTERM, SIGHUP or Ctrl-C, then store what is queued"),
        ("migrate", "bring the database's schema up to date and exit (serve does it, too)"),
        ("check", "validate the settings, try the database and the ports, say what would be used"),
    ):
        _add_settings(_parser_of(commands, name, summary))
    _add_keys(commands)
    _add_journal(commands)
    _add_dead_letters(commands)
    _add_clients(commands)
    show = "start a server on a temporary database, send it a load, show what was stored"
    command = commands.add_parser(
        "demo",
        help=show,
        description=f"{show[0].upper()}{show[1:]}. It heeds neither INGESTOR_* nor .env.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--metrics",
        type=_positive,
        default=100_000,
        metavar="N",
        help="how many to send (default: %(default)s)",
    )
    command.add_argument(
        "--stay",
        action="store_true",
        help="go on afterwards, with a gentle load, and show it on the page, until Ctrl-C",
    )
    return parser


def _add_keys(commands: Any) -> None:
    about = "the keys that callers send, in KEYS_FILE: make, list and revoke them; a running server notices"
    actions = _with_actions(commands, "keys", about)
    create = _action(
        actions,
        "create",
        "make a key, and print its secret, which nobody can ever be told again; with the first one keys are needed",
    )
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
    create.add_argument("--requests-per-s", type=_rate, metavar="N", help="requests a second at most")
    create.add_argument("--metrics-per-s", type=_rate, metavar="N", help="metrics a second at most")
    create.add_argument(
        "--series-per-hour", type=_positive, metavar="N", help="in place of SERIES_PER_HOUR_MAX"
    )
    create.add_argument(
        "--certificate-name",
        dest="certificate_names",
        action="append",
        metavar="NAME",
        help="a name (DNS or URI; common where there is no other) in client certificates that stand for the key;"
        " may be repeated",
    )
    listed = _action(actions, "list_", "print all keys with their state, never a secret", name="list")
    listed.add_argument("--json", dest="as_json", action="store_true", help="as lines of JSON")
    revoked = _action(actions, "revoke", "end a key's validity; servers notice within seconds")
    revoked.add_argument("id_", metavar="ID")


def _add_journal(commands: Any) -> None:
    about = "look into the disk journal in DATA_DIR, which may be in use; or give it to another database"
    actions = _with_actions(commands, "journal", about)
    status = _action(actions, "status", "say what is in it: positions, what is pending, what is damaged")
    status.add_argument("--json", dest="as_json", action="store_true", help="as one JSON object")
    _action(actions, "verify", "read all of it, and exit with 1 when anything is damaged or missing")
    exported = _action(
        actions,
        "exported",
        "print its metrics as lines of JSON, each of which can be sent to /v1/metrics:batch",
        name="export",
    )
    exported.add_argument("--after", type=_whole, metavar="POSITION", help="only entries behind this one")
    exported.add_argument(
        "--pending", action="store_true", help="only what is not known to be committed (a little more may be)"
    )
    _action(
        actions, "adopt", "give it to the database that DATABASE_URL names; no server may use it meanwhile"
    )


def _add_dead_letters(commands: Any) -> None:
    about = "metrics that the database refused: look at them, store them again, or delete them"
    actions = _with_actions(commands, "dead-letters", about)
    listed = _action(actions, "list_", "print the newest", name="list")
    listed.add_argument("--limit", type=_positive, default=50, metavar="N", help="at most so many (50)")
    listed.add_argument("--service", metavar="NAME", help="only those of this service")
    listed.add_argument(
        "--since", type=_moment, metavar="TIME", help="only those refused since, such as 2026-01-02T03:04Z"
    )
    listed.add_argument("--json", dest="as_json", action="store_true", help="as lines of JSON")
    shown = _action(actions, "show", "print one with everything that is known of it")
    shown.add_argument("id_", type=_positive, metavar="ID")
    replayed = _action(actions, "replay", "store them again; those that are refused again stay (exit code 1)")
    _add_choice(replayed)
    purged = _action(actions, "purge", "delete them for good")
    _add_choice(purged)
    purged.add_argument(
        "--before", type=_moment, metavar="TIME", help="with --all: only those refused before"
    )
    purged.add_argument("--yes", dest="sure", action="store_true", help="without being asked")


def _add_clients(commands: Any) -> None:
    top = _parser_of(
        commands,
        "top",
        "show a running server's rates, latency and services; once where stdout is no terminal",
    )
    top.add_argument(
        "--every",
        dest="every_s",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="how often (default: 2)",
    )
    tail = _parser_of(commands, "tail", "print metrics as a running server commits them")
    tail.add_argument("--service", default="", metavar="NAME", help="only those of this service")
    tail.add_argument("--metric", default="", metavar="NAME", help="only those of this name")
    tail.add_argument("--json", dest="as_json", action="store_true", help="as lines of JSON")
    for client in (top, tail):
        client.add_argument(
            "--address",
            default="http://127.0.0.1:8080",
            metavar="URL",
            help="the server's HTTP side (default: %(default)s); a key comes from the variable INGESTOR_KEY",
        )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", type=_positive, metavar="ID")
    parser.add_argument("--all", dest="all_", action="store_true", help="all of them, in place of ids")
    parser.add_argument("--service", metavar="NAME", help="with --all: only those of this service")


def _with_actions(commands: Any, name: str, about: str) -> Any:
    command = _parser_of(commands, name, about)
    return command.add_subparsers(dest="action", required=True, metavar="ACTION")


def _action(actions: Any, action: str, summary: str, *, name: str | None = None) -> argparse.ArgumentParser:
    parser = _parser_of(actions, name or action, summary)
    parser.set_defaults(action=action)
    _add_settings(parser)
    return parser


def _parser_of(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    import argparse

    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    import argparse

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
            shown = _shown(field.default)
            suffix = f" (default: {shown})" if shown else ""
            group.add_argument(flag, metavar=name.upper(), default=argparse.SUPPRESS, help=text + suffix)


def _shown(default: object) -> str:
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


def _whole(text: str) -> int:
    import argparse

    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        msg = "must be a whole number"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _seconds(text: str) -> float:
    import argparse

    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        msg = "must lie between 0.1 and 3600 seconds"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def _moment(text: str) -> datetime:
    import argparse
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = "must be a time such as 2026-01-02 or 2026-01-02T03:04:05Z"
        raise argparse.ArgumentTypeError(msg) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _rate(text: str) -> float:
    import argparse

    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1e9:
        msg = "must be a number between 0.001 and 1,000,000,000"
        raise argparse.ArgumentTypeError(msg)
    return rate


def _positive(text: str) -> int:
    import argparse

    number = _whole(text)
    if not 1 <= number <= 10_000_000:
        msg = "must lie between 1 and 10,000,000"
        raise argparse.ArgumentTypeError(msg)
    return number
