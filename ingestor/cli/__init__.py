"""The command `ingestor`: serve, migrate, check, keys, journal, dead-letters, top, tail and demo, with a flag for
every setting; a file for each subject.

Whatever goes wrong for a reason that an operator can mend is one line on stderr and an exit code. This module
imports next to nothing, because a Ctrl-C while others are imported is no reason for a traceback either; and each
command imports what it does once it is the one that was given.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


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
    from ingestor.cli.parser import parser
    from ingestor.errors import StartupError
    from ingestor.output import escape_the_unencodable

    escape_the_unencodable()
    given = vars(parser().parse_args(arguments))
    run = given.pop("run")
    try:
        code: int = run(given)
    except StartupError as error:
        print(f"ingestor: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return code
