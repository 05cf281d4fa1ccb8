"""The command: runs what the options say, prints the report, verifies, and turns it all into an exit code.

Every way out passes the report first, Ctrl-C included; it decides nothing about load or rows.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
from rich.console import Console

from ingestor.loadgen.brake import Brake
from ingestor.loadgen.display import print_report, print_verification, progress_shown
from ingestor.loadgen.options import parse
from ingestor.loadgen.plan import LoadPlan
from ingestor.loadgen.report import LoadReport
from ingestor.loadgen.runner import run
from ingestor.loadgen.verify import Verification, verify

OK, VERIFICATION_FAILED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code (see --help); a usage error exits at once."""
    plan, options = parse(argv)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_Command(plan, options).execute())
    except KeyboardInterrupt:  # before or after the part that handles it
        return INTERRUPTED


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Command:
    def __init__(self, plan: LoadPlan, options: Namespace) -> None:
        self._plan = plan
        self._options = options
        self._stderr = Console(stderr=True)
        # `--json -` leaves stdout to the JSON alone.
        self._output = self._stderr if options.json == "-" else Console()

    async def execute(self) -> int:
        report = await self._run()
        print_report(self._output, report)
        code = INTERRUPTED if report.interrupted else UNREACHABLE if report.unreachable else OK
        verification = None
        if self._options.verify is not None and not report.interrupted:
            verification, verified = await self._verify(report)
            code = verified or code
        self._write_json(report, verification)
        return code

    async def _run(self) -> LoadReport:
        brake = Brake()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, brake.pull)
        if self._options.quiet:
            return await run(self._plan, brake=brake)
        with progress_shown(self._plan, self._stderr) as progress:
            return await run(self._plan, progress=progress, brake=brake)

    async def _verify(self, report: LoadReport) -> tuple[Verification | None, int]:
        task = asyncio.ensure_future(
            verify(self._options.verify, self._plan, report, settle_s=self._options.settle_s)
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        try:
            verification = await task
        except asyncio.CancelledError:
            self._stderr.print("not verified: interrupted")
            return None, INTERRUPTED
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._stderr.print(f"not verified: {error}", markup=False)
            return None, VERIFICATION_FAILED
        print_verification(self._output, verification)
        return verification, OK if verification.ok else VERIFICATION_FAILED

    def _write_json(self, report: LoadReport, verification: Verification | None) -> None:
        if self._options.json is None:
            return
        parts = {"plan": self._plan, "report": report, "verification": verification}
        text = json.dumps(
            {name: part and part.model_dump(mode="json") for name, part in parts.items()}, indent=2
        )
        if self._options.json == "-":
            sys.stdout.write(text + "\n")
        else:
            Path(self._options.json).write_text(text + "\n")
