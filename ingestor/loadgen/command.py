"""The command: runs what the options say, prints the report, verifies, and turns it all into an exit code.

Every way out passes the report first, Ctrl-C and SIGTERM included; it decides nothing about load or rows.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

import asyncpg

from ingestor.loadgen.brake import Brake
from ingestor.loadgen.display import Output, drop, print_report, print_verification, progress_shown
from ingestor.loadgen.options import parse
from ingestor.loadgen.plan import LoadPlan
from ingestor.loadgen.report import LoadReport
from ingestor.loadgen.runner import run
from ingestor.loadgen.verify import Verification, verify

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
# Plus the signal's number, as shells have it.
INTERRUPTED = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code (see --help); a usage error exits at once."""
    try:
        plan, options = _parsed(argv)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_Command(plan, options).execute())
    except KeyboardInterrupt:  # before or after the part that handles it
        return INTERRUPTED + signal.SIGINT


def _parsed(argv: Sequence[str] | None) -> tuple[LoadPlan, Namespace]:
    try:
        try:
            return parse(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # --help; its reader may have left
    except BrokenPipeError:
        drop(sys.stdout)
        raise SystemExit(OK) from None


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
        self._brake = Brake()
        self._verifying: asyncio.Task[Verification] | None = None
        self._stopped_by: int | None = None
        self._stderr = Output(stderr=True)
        # `--json -` leaves stdout to the JSON alone.
        self._output = self._stderr if options.json == "-" else Output()

    async def execute(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop, number)
        report = await self._run()
        print_report(self._output, report)
        code = UNREACHABLE if report.unreachable else OK
        verification = None
        if self._options.verify is not None and self._stopped_by is None:
            verification, verified = await self._verify(report)
            code = verified or code
        code = self._write_json(report, verification) or code
        return code if self._stopped_by is None else INTERRUPTED + self._stopped_by

    def _stop(self, number: int) -> None:
        """The first signal decides the exit code."""
        if self._stopped_by is None:
            self._stopped_by = number
        self._brake.pull()
        if self._verifying is not None:
            self._verifying.cancel()

    async def _run(self) -> LoadReport:
        if self._options.quiet:
            return await run(self._plan, brake=self._brake)
        with progress_shown(self._plan, self._stderr) as progress:
            return await run(self._plan, progress=progress, brake=self._brake)

    async def _verify(self, report: LoadReport) -> tuple[Verification | None, int]:
        self._verifying = asyncio.create_task(
            verify(self._options.verify, self._plan, report, settle_s=self._options.settle_s)
        )
        try:
            verification = await self._verifying
        except asyncio.CancelledError:
            self._stderr.print("not verified: interrupted")
            return None, FAILED
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._stderr.print(f"not verified: {error}", markup=False)
            return None, FAILED
        print_verification(self._output, verification)
        return verification, OK if verification.ok else FAILED

    def _write_json(self, report: LoadReport, verification: Verification | None) -> int:
        if self._options.json_file is None:
            return OK
        parts = {"plan": self._plan, "report": report, "verification": verification}
        text = json.dumps(
            {name: part and part.model_dump(mode="json") for name, part in parts.items()}, indent=2
        )
        try:
            with self._options.json_file as file:
                file.write(text + "\n")
        except BrokenPipeError:  # nobody wants it
            return OK
        except OSError as error:
            self._stderr.print(f"--json {self._options.json}: {error}", markup=False)
            return FAILED
        return OK
