"""What the fault tests share: seeds and rounds, a PostgreSQL for each module, and a table of counts at the end."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import pytest_asyncio

from tests.fault.harness.gateway import Gateway
from tests.fault.harness.load import Load
from tests.fault.harness.postgres_server import PostgresServer
from tests.fault.harness.requests import Mix
from tests.fault.harness.verdict import Verdict

Report = Callable[[Verdict], None]
_KEY = "fault"


@pytest.fixture
def seed() -> str:
    """What decides everything that is random in a test; FAULT_SEED repeats one."""
    chosen = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"FAULT_SEED={chosen}")
    return chosen


@pytest.fixture
def chance(seed: str) -> random.Random:
    """The test's own randomness."""
    return random.Random(seed)


def rounds(short: int, share: float = 1.0) -> int:
    """How many rounds a test goes: `short` ones, or FAULT_ROUNDS times its share."""
    return max(short, round(int(os.environ.get("FAULT_ROUNDS", "0")) * share))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgresql() -> AsyncIterator[PostgresServer]:
    """A server that tests may kill; whoever does starts it again."""
    with TemporaryDirectory(prefix="ingestor-fault-") as folder:
        Path(folder).chmod(0o711)
        server = PostgresServer(Path(folder))
        await server.create()
        await server.start()
        yield server
        await server.stop()


@dataclass(frozen=True)
class Trial:
    """What a fault test is given: a server to store in, a folder, its randomness, and where it reports."""

    postgresql: PostgresServer
    home: Path
    seed: str
    chance: random.Random
    report: Report

    def load(self, gateways: Sequence[Gateway], mix: Mix | None = None, **options: Any) -> Load:
        """Clients of these gateways."""
        return Load([each.target() for each in gateways], mix or Mix(), self.seed, **options)


@pytest.fixture
def trial(
    postgresql: PostgresServer, tmp_path: Path, seed: str, chance: random.Random, report: Report
) -> Trial:
    """All of it."""
    return Trial(postgresql, tmp_path, seed, chance, report)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 24 MiB, where also another user can be given a folder."""
    with TemporaryDirectory(prefix="ingestor-fault-disk-") as name:
        Path(name).chmod(0o711)
        folder = Path(name, "disk")
        folder.mkdir()
        command = ("mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "tmpfs", str(folder))
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a small file system can't be mounted here: that takes root's rights")
        try:
            yield folder
        finally:
            subprocess.run(("umount", "-l", folder), check=True)


@pytest.fixture
def report(request: pytest.FixtureRequest, seed: str) -> Report:
    """Adds a test's counts to the table."""

    def add(verdict: Verdict) -> None:
        row = {"test": request.node.name, "seed": seed, **asdict(verdict)}
        request.node.user_properties.append((_KEY, row))

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, ())]
    properties = [pair for each in reports if each.when == "call" for pair in each.user_properties]
    table = [value for name, value in properties if name == _KEY]
    if not table:
        return
    terminalreporter.section("faults")
    heads = list(table[0])
    widths = [max(len(head), *(len(str(row[head])) for row in table)) for head in heads]
    for cells in (heads, *([str(row[head]) for head in heads] for row in table)):
        line = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        terminalreporter.write_line("  ".join([cells[0].ljust(widths[0]), *line]))
