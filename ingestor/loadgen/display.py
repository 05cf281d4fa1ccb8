"""Shows a run to people: progress while it goes on, a table when it has ended.

It writes progress to stderr only, and computes nothing that the report doesn't say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from ingestor.loadgen.plan import LoadPlan
from ingestor.loadgen.report import LoadReport, Results
from ingestor.loadgen.tally import Progress
from ingestor.loadgen.verify import Verification

# Where stderr is no terminal.
LINE_INTERVAL_S = 5.0


class Output(Console):
    """One whose reader may leave (`| head`): what else is written there is dropped, and the run goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        drop(self.file)


def drop(file: IO[str]) -> None:
    """Lets whatever is still written to the file vanish, what its buffer holds included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


@contextmanager
def progress_shown(plan: LoadPlan, console: Console) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line every few seconds elsewhere."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with RichProgress(*columns, console=console, transient=True) as bar:
        by_time = plan.metrics_planned is None
        task = bar.add_task("", total=plan.duration_s if by_time else plan.metrics_planned)
        yield lambda now: bar.update(
            task, completed=now.elapsed_s if by_time else now.sent, description=_sentence(now)
        )


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = LINE_INTERVAL_S

    def __call__(self, now: Progress) -> None:
        if now.elapsed_s >= self._next_s:
            self._next_s = now.elapsed_s + LINE_INTERVAL_S
            self._console.print(f"{now.elapsed_s:.0f} s: {_sentence(now)}", highlight=False)


def _sentence(now: Progress) -> str:
    rate = now.acknowledged / now.elapsed_s if now.elapsed_s else 0.0
    parts = [f"{now.acknowledged:,} acknowledged ({rate:,.0f}/s)"]
    parts += [f"{now.refused:,} refused"] if now.refused else []
    parts += [f"{now.unanswered:,} unanswered"] if now.unanswered else []
    return ", ".join(parts)


def print_report(console: Console, report: LoadReport) -> None:
    """The table, and a line for everything out of the ordinary."""
    console.print(_table(report))
    for line in _remarks(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_verification(console: Console, verification: Verification) -> None:
    """One line when all is well, else the first examples too."""
    counts = ", ".join(
        f"{getattr(verification, name):,} {name}" for name in ("missing", "duplicated", "wrong", "extra")
    )
    verdict = "verified" if verification.ok else "VERIFICATION FAILED"
    unanswered = verification.unanswered_stored
    also = f"; {unanswered:,} unanswered metrics are stored too" if unanswered else ""
    lines = [f"{verdict}: {verification.acknowledged:,} acknowledged metrics, {counts}{also}"]
    lines += [f"  {example}" for example in verification.examples]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(report: LoadReport) -> Table:
    columns: dict[str, Results] = {str(name): results for name, results in report.protocols.items()}
    if len(columns) > 1:
        columns["total"] = report.total
    table = Table(title=f"run {report.run_id}, {report.elapsed_s:,.1f} s", title_justify="left")
    table.add_column("metrics")
    for name in columns:
        table.add_column(name, justify="right")
    cells = {name: _cells(results) for name, results in columns.items()}
    for label in _cells(report.total):
        table.add_row(label, *(column.get(label, "0") for column in cells.values()))
    return table


def _cells(results: Results) -> dict[str, str]:
    cells = {"sent": f"{results.sent:,}", "acknowledged": f"{results.acknowledged:,}"}
    cells["rejected"] = f"{results.rejected:,}"
    cells |= {f"refused: {code}": f"{number:,}" for code, number in sorted(results.refused.items())}
    cells |= {f"unanswered: {why}": f"{number:,}" for why, number in sorted(results.unanswered.items())}
    cells["acknowledged/s"] = f"{results.metrics_per_s:,.0f}"
    cells["requests"] = f"{results.requests:,}"
    cells["requests/s"] = f"{results.requests_per_s:,.0f}"
    cells["retries"] = f"{results.retries:,}"
    for name in ("p50", "p95", "p99", "max"):
        value = results.latency and getattr(results.latency, f"{name}_ms")
        cells[f"latency {name}"] = "-" if value is None else f"{value:,.2f} ms"
    return cells


def _remarks(report: LoadReport) -> Iterator[str]:
    for protocol, message in report.unreachable.items():
        yield f"{protocol} could not be reached: {message}"
    if report.unsent:
        yield f"{report.unsent:,} of {report.planned:,} planned metrics were not sent"
    if report.sent_late:
        late = f"{report.sent_late:,} metrics were sent late, by up to {report.lag_ms_max:,.0f} ms"
        yield f"{late}: the server, or all connections x streams, can't keep up with the rate"
    for code, message in report.messages.items():
        yield f"{code}: {message}"
    for reason, number in report.rejected_reasons.items():
        yield f"{number:,} rejected: {reason}"
