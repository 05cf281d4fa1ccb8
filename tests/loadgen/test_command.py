"""The command as a user runs it: exit codes, what is printed where, signals, readers that leave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.loadgen.cable import Cable
from tests.loadgen.fake_server import ACCEPT, HANG, FakeServer, Reply, Row

ROOT = Path(__file__).resolve().parents[2]


class Command:
    """A running `scripts/loadgen.py` against the server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls, server: FakeServer, *arguments: str, stdout: int = asyncio.subprocess.PIPE, unbuffered: str = ""
    ) -> Command:
        grpc, http = f"127.0.0.1:{server.grpc_port}", f"http://127.0.0.1:{server.http_port}"
        command = (str(ROOT / "scripts" / "loadgen.py"), "--grpc", grpc, "--http", http, *arguments)
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            )
        )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        stdout, stderr = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, (stdout or b"").decode(), stderr.decode()


async def ended(server: FakeServer, *arguments: str) -> tuple[int, str, str]:
    return await (await Command.start(server, *arguments)).ended()


async def test_a_run_prints_its_table_and_nothing_else(server: FakeServer) -> None:
    """To stdout; stderr stays empty where it is no terminal and the run is short."""
    code, stdout, stderr = await ended(server, "--count", "500")
    assert (code, stderr) == (0, "")
    assert "acknowledged" in stdout
    assert len(server.taken) == 500


async def test_json_to_stdout_and_a_verification_that_can_not_be_done(server: FakeServer) -> None:
    """Stdout is left to the JSON, the table moves to stderr; not knowing is no success, so the code is 1."""
    async with Cable(server.http_port) as cable:
        dead = f"postgresql://postgres@127.0.0.1:{cable.port}/none"
    code, stdout, stderr = await ended(server, "--count", "500", "--json", "-", "--verify", dead)
    result: dict[str, Any] = json.loads(stdout)
    assert code == 1
    assert result["plan"]["count"] == result["report"]["total"]["acknowledged"] == 500
    assert result["verification"] is None
    assert "acknowledged" in stderr
    assert "not verified" in stderr


async def test_a_failed_verification_exits_with_1(
    server: FakeServer, database_url: str, tmp_path: Path
) -> None:
    """And the JSON file says why."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "CREATE TABLE metrics (time timestamptz, service_name text, metric_name text, value float)"
    )
    await connection.close()
    file = tmp_path / "report.json"
    options = ("--count", "20", "--verify", database_url, "--settle", "0s", "--json", str(file))
    code, stdout, _ = await ended(server, *options)
    assert code == 1
    assert "VERIFICATION FAILED: 20 acknowledged metrics, 20 missing" in stdout
    assert json.loads(file.read_text())["verification"]["missing"] == 20


async def test_an_unreachable_target_exits_with_3(server: FakeServer) -> None:
    """It is named."""
    async with Cable(server.grpc_port) as cable:
        dead = f"127.0.0.1:{cable.port}"
    options = ("--protocol", "grpc", "--grpc", dead, "--reconnect", "100ms")
    code, stdout, _ = await ended(server, *options)
    assert code == 3
    assert "grpc could not be reached" in stdout


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_run_with_its_report(
    server: FakeServer, number: signal.Signals, expected: int, presses: int
) -> None:
    """Ctrl-C and SIGTERM: once waits for answers in flight, twice doesn't."""
    started = asyncio.Event()

    def reply(rows: list[Row], _: int) -> Reply:
        if rows[0].value >= 300:
            started.set()
        return HANG if presses == 2 else ACCEPT

    server.reply = reply
    command = await Command.start(server, "--duration", "60s", "--rate", "10000")
    async with asyncio.timeout(10):
        await started.wait()
    for _ in range(presses):
        command.send(number)
        await asyncio.sleep(0.1)  # two signals at once are one
    async with asyncio.timeout(4):
        code, stdout, stderr = await command.ended()
    assert (code, stderr) == (expected, "")
    assert ("unanswered: interrupted" in stdout) == (presses == 2)
    assert "acknowledged" in stdout


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_verification(
    server: FakeServer, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    """The report is out by then, and its JSON still written."""
    connected = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writers.append(writer)  # or it is closed

    writers: list[asyncio.StreamWriter] = []
    database = await asyncio.start_server(silent, "127.0.0.1", 0)
    dsn = f"postgresql://postgres@127.0.0.1:{database.sockets[0].getsockname()[1]}/none"
    file = tmp_path / "report.json"
    command = await Command.start(server, "--count", "20", "--verify", dsn, "--json", str(file))
    async with asyncio.timeout(10):
        await connected.wait()
        command.send(number)
        code, stdout, stderr = await command.ended()
    assert (code, stderr) == (expected, "not verified: interrupted\n")
    assert "acknowledged" in stdout
    assert json.loads(file.read_text())["report"]["total"]["acknowledged"] == 20
    for writer in writers:
        writer.close()
    database.close()


async def test_json_that_can_not_be_written_is_a_failure_without_a_traceback(server: FakeServer) -> None:
    """A disk that fills up while it runs: the table has been printed, the exit code is 1."""
    code, stdout, stderr = await ended(server, "--count", "20", "--json", "/dev/full")
    assert (code, len(stderr.splitlines())) == (1, 1)
    assert stderr.startswith("--json /dev/full: ")
    assert "acknowledged" in stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("option", [(), ("--json", "-", "--quiet"), ("--help",)])
async def test_a_reader_that_leaves_changes_nothing_else(
    server: FakeServer, option: tuple[str, ...], unbuffered: str
) -> None:
    """As in `loadgen | true`: no traceback, and the exit code of the run."""
    read, write = os.pipe()
    os.close(read)
    command = await Command.start(server, "--count", "20", *option, stdout=write, unbuffered=unbuffered)
    os.close(write)
    code, _, stderr = await command.ended()
    assert code == 0
    assert "Error" not in stderr
    assert bool(stderr) == ("--json" in option)  # the table
    assert len(server.taken) == (0 if "--help" in option else 20)


async def test_a_reader_that_leaves_takes_no_json_along(server: FakeServer, tmp_path: Path) -> None:
    """What was to be done after the table is done."""
    read, write = os.pipe()
    os.close(read)
    file = tmp_path / "report.json"
    command = await Command.start(server, "--count", "20", "--json", str(file), stdout=write)
    os.close(write)
    assert (await command.ended())[0] == 0
    assert json.loads(file.read_text())["report"]["total"]["acknowledged"] == 20
