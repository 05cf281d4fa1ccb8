"""The command line of the load generator, and the plan that it means.

It refuses a bad option with exit code 2 and one line; it runs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from ingestor.loadgen.identity import client_context
from ingestor.loadgen.plan import COUNT_DEFAULT, LoadPlan
from ingestor.loadgen.verify import SETTLE_S

_STDOUT = 1
_UNITS_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_DESCRIPTION = """\
Sends metrics to an ingestor over gRPC and HTTP, and reports what became of every one of them.

Every metric has a sequence number of the run as its value, so that --verify can prove, row by row, that what
was acknowledged is stored exactly once. Requests are distinct: time moves, and some rows are late.
"""
_EPILOG = """\
With --rate, requests are sent by the clock however slow the answers are, and latency counts from the time a
request was due. Outstanding requests are bounded by connections x streams over gRPC, and by connections over
HTTP/1.1, which carries one request at a time. A request that starts more than 100 ms late is reported as sent
late; one that could not start within --timeout of its time, or before the end of --duration, as unsent.
Without --rate each stream sends its next request when the last one is answered.

A refused request has an answer that says that nothing of it was taken. Unanswered are those whose connection
was lost, whose time was over, or whose answer leaves it open (such as DEADLINE_EXCEEDED, INTERNAL): their
metrics may be stored or not. They are sent again under their names with --request-ids and --retries, else never.

Ctrl-C or SIGTERM stops sending, waits up to 5 s for answers in flight and prints the report; a second ends at once.

exit codes: 0 all fine (refusals are results, not failures) | 1 the verification failed or could not be done,
            or the JSON could not be written | 2 wrong usage | 3 a target could not be reached |
            130 interrupted by Ctrl-C | 143 by SIGTERM; where nobody reads the output (| head), it is as if read

examples:
  loadgen.py                                         # 10,000 metrics, over both protocols
  loadgen.py --rate 20000 --duration 1m --batch 500  # 20,000 metrics/s for a minute
  loadgen.py --protocol grpc --batch 1 --streams 16  # one metric a request
  loadgen.py --count 1000000 --batch 1000 --retries 5 --verify postgresql://postgres@127.0.0.1/metrics
  loadgen.py --quiet --json - | jq .report.total
"""


def parse(argv: Sequence[str] | None) -> tuple[LoadPlan, argparse.Namespace]:
    """The plan, and the options that are not part of it; exits with 2 when they make no sense."""
    parser = _parser()
    options = parser.parse_args(argv)
    given = {name: value for name, value in vars(options).items() if name in LoadPlan.model_fields}
    try:
        plan = LoadPlan(**{name: value for name, value in given.items() if value is not None})
        _try_tls(parser, plan)
        # Rather now than when the run is over and its report lost.
        options.json_file = None if options.json is None else _opened(options.json)
    except OSError as error:
        parser.error(f"--json {options.json}: {(error.strerror or str(error)).lower()}")
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + "-".join(map(str, first["loc"])).removesuffix("_s") if first["loc"] else ""
        parser.error(f"{name} {first['msg'].removeprefix('Value error, ')}".strip())
    return plan, options


def _opened(path: str) -> TextIO:
    # Stdout is left open for whoever else writes there.
    return os.fdopen(_STDOUT, "w", closefd=False) if path == "-" else Path(path).open("w")


def _try_tls(parser: argparse.ArgumentParser, plan: LoadPlan) -> None:
    try:
        client_context(plan)
    except OSError as error:
        parser.error(f"--tls-ca, --tls-cert or --tls-key: {(error.strerror or str(error)).lower()}")


def key(text: str) -> str:
    """A key, or the content of the file behind an `@`, for who does not want it in a list of processes."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("ascii").strip()
    except (OSError, UnicodeError):
        raise argparse.ArgumentTypeError(f"{text[1:]} holds no key that can be read") from None


def seconds(text: str) -> float:
    """`250ms`, `30s`, `2m`, `1h`, or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 250ms, 30s or 2m")
    return float(match[1]) * _UNITS_S[match[2]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loadgen",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_target(parser)
    _add_load(parser)
    _add_safety(parser)
    _add_rows(parser)
    _add_result(parser)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("target")
    add = group.add_argument
    add("--grpc", metavar="HOST:PORT", help="default 127.0.0.1:50051")
    add("--http", metavar="URL", help="default http://127.0.0.1:8080")
    add("--tls-ca", metavar="FILE", help="over TLS, trusting these CAs in PEM; `system` for the system's")
    add("--tls-cert", metavar="FILE", help="the certificate to show to the server, in PEM")
    add("--tls-key", metavar="FILE", help="its private key")
    add("--key", type=key, metavar="KEY|@FILE", help="sent with each request as authorization: Bearer KEY")
    add("--protocol", choices=("grpc", "http", "both"), help="default both: connections alternate")
    add("--timeout", dest="timeout_s", type=seconds, metavar="TIME", help="of one attempt (default 30s)")
    add(
        "--retries",
        type=int,
        metavar="N",
        help="of RESOURCE_EXHAUSTED and UNAVAILABLE (429, 503), after a jittered backoff of up to 2 s, or"
        " Retry-After where the server asks for it, up to 30 s (default 0)",
    )
    add(
        "--reconnect",
        dest="reconnect_s",
        type=seconds,
        metavar="TIME",
        help="how long a target is tried that takes no connection, at the start or later (default 10s)",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    add = group.add_argument
    add("--rate", type=int, metavar="N", help="metrics a second, by the clock (default: as fast as possible)")
    add("--connections", type=int, metavar="N", help="default 4")
    add("--streams", type=int, metavar="N", help="concurrent requests a gRPC connection (default 4)")
    add("--batch", type=int, metavar="N", help="metrics a request (default 100); 1 uses the unary LogMetric")
    end = group.add_mutually_exclusive_group()
    end.add_argument("--count", type=int, metavar="N", help=f"metrics to send (default {COUNT_DEFAULT})")
    end.add_argument("--duration", dest="duration_s", type=seconds, metavar="TIME", help="such as 30s")


def _add_safety(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("safety").add_argument
    add(
        "--ack",
        choices=("queued", "journaled", "committed"),
        help="what a request waits for (default: the server's own default)",
    )
    add(
        "--request-ids",
        action="store_true",
        default=None,
        help="name each request, so that --retries also repeats what was not answered, and nothing is stored twice",
    )


def _add_rows(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("rows").add_argument
    add("--labels", type=int, metavar="N", help="labels a metric (default 0)")
    add("--series", type=int, metavar="N", help="time series, in at most 10 services (default 100)")
    add(
        "--late",
        dest="late_percent",
        type=float,
        metavar="PERCENT",
        help="of the rows out of order, by up to 10 minutes (default 5)",
    )
    add("--seed", type=int, metavar="N", help="which series and which rows are late (default 1)")


def _add_result(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("result").add_argument
    add("--json", metavar="FILE", help="write the report there as JSON; - is stdout, in place of the table")
    add("--quiet", action="store_true", help="no progress")
    add("--verify", metavar="DSN", help="compare the stored rows of this PostgreSQL with what was sent")
    add(
        "--settle",
        dest="settle_s",
        type=seconds,
        metavar="TIME",
        default=SETTLE_S,
        help="how long --verify waits for acknowledged rows (default 30s)",
    )
