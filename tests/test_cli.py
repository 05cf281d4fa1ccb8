"""The command as an operator meets it: help, exit codes, one line for each error."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ingestor import __version__
from ingestor.errors import DatabaseProblem
from ingestor.settings import Settings
from ingestor.storage.opening import inspect
from tests.server_process import environment, run, serve


async def test_version(tmp_path: Path) -> None:
    """On stdout, alone."""
    assert await run("--version", cwd=tmp_path) == (0, f"ingestor {__version__}\n", "")


async def test_help_names_commands_settings_and_exit_codes(tmp_path: Path) -> None:
    """All that an operator needs before reading anything else."""
    _, out, _ = await run("--help", cwd=tmp_path)
    for word in ("serve", "migrate", "check", "demo", "exit codes", "DATA_DIR"):
        assert word in out
    _, out, _ = await run("serve", "--help", cwd=tmp_path)
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in out
    for default in (
        "(default: 20000)",
        "(default: 1s)",
        "(default: 4MiB)",
        "(default: 365d)",
        "(default: 127.0.0.1)",
    ):
        assert default in out.replace("\n                        ", " ")


async def test_help_gives_each_exit_code_a_line_of_its_own(tmp_path: Path) -> None:
    """It is a table: codes at the beginning of lines, what they mean behind them and in no other column."""
    _, out, _ = await run("--help", cwd=tmp_path)
    table = out.partition("exit codes:\n")[2].partition("SIGTERM, SIGHUP and the first")[0]
    rows = [line for line in table.splitlines() if not line.startswith(" " * 7)]
    assert [row[:7].strip() for row in rows] == ["0", "1", "2", "3", "4", "5", "6", "7", "129", "130", "143"]
    assert all(row[:2] == "  " and row[6] == " " and row[7] != " " for row in rows)


@pytest.mark.parametrize("command", ["serve", "migrate", "check"])
async def test_a_bad_setting_is_one_line_and_exit_code_2(tmp_path: Path, command: str) -> None:
    """From a flag and from the environment alike."""
    code, out, err = await run(command, "--batch-size", "0", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("ingestor: INGESTOR_BATCH_SIZE (or --batch-size): ")
    assert err.count("\n") == 1
    assert (await run(command, cwd=tmp_path, flush_interval="soon"))[0] == 2
    assert (await run(command, "--nonsense", cwd=tmp_path))[0] == 2


@pytest.mark.parametrize("command", ["serve", "migrate", "check"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://us:SEC/RET@127.0.0.1:5415/x",
        "postgresql:SECRET",
        "postgresql://u:SEC@RET@127.0.0.1:1/d",
        "postgresql://u:SECRET@127.0.0.1:port/d",
    ],
)
async def test_a_malformed_address_is_exit_code_2_and_not_shown(
    tmp_path: Path, command: str, url: str
) -> None:
    """No part of it may be a password, so none is printed; how to write it is."""
    code, out, err = await run(command, cwd=tmp_path, database_url=url)
    assert (code, out) == (2, "")
    assert "must read postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in err
    assert err.count("\n") == 1
    assert "SEC" not in err
    assert "RET" not in err


@pytest.mark.parametrize("command", ["serve", "migrate", "check"])
async def test_an_unreachable_database_is_exit_code_3(tmp_path: Path, command: str) -> None:
    """The line names the server and what to look at, and not the password."""
    url = "postgresql://u:hunter2@127.0.0.1:1/d"
    code, out, err = await run(command, cwd=tmp_path, database_url=url, grpc_port="0", http_port="0")
    assert code == 3
    assert "the database at 127.0.0.1:1/d can't be used: connection refused" in out + err
    assert "check DATABASE_URL" in out + err
    assert "hunter2" not in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("port", ["grpc_port", "http_port"])
@pytest.mark.parametrize("command", ["serve", "check"])
async def test_a_taken_port_is_exit_code_4(
    tmp_path: Path, database_url: str, command: str, port: str
) -> None:
    """The line names address and setting; nothing of the server stays behind."""
    ports = {"grpc_port": "0", "http_port": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        ports[port] = str(number)
        code, out, err = await run(command, cwd=tmp_path, database_url=database_url, **ports)
    assert code == 4
    assert f"can't listen on 127.0.0.1:{number}: address already in use" in (out + err).lower()
    assert port.upper() in out + err


@pytest.mark.parametrize("command", ["serve", "migrate", "check"])
async def test_an_unusable_data_dir_is_exit_code_5(open_path: Path, command: str) -> None:
    """A file where the directory should be."""
    file = open_path / "file"
    file.write_text("")
    code, out, err = await run(
        command, cwd=open_path, data_dir=str(file / "data"), grpc_port="0", http_port="0"
    )
    assert code == 5
    assert str(file) in out + err
    assert "Traceback" not in err


async def test_migrate_says_what_it_did(tmp_path: Path, database_url: str) -> None:
    """And the second time that there was nothing to do."""
    code, out, err = await run("migrate", cwd=tmp_path, database_url=database_url)
    assert (code, err) == (0, "")
    assert "applied 0002 metrics\n" in out
    assert "metrics is partitioned by week" in out
    code, out, _ = await run("migrate", cwd=tmp_path, database_url=database_url)
    assert code == 0
    assert "nothing to do" in out


async def test_logs_are_json_lines_without_secrets(tmp_path: Path, database_url: str) -> None:
    """Each line has time, level, message and logger; other libraries' lines are among them; exit code 0."""
    separator = "&" if "?" in database_url else "?"
    url = f"{database_url}{separator}password=hunter2"
    async with serve(tmp_path, database_url=url, log_level="DEBUG") as server:
        await server.stop(signal.SIGTERM)
    assert server.process.returncode == 0
    for line in server.log:
        assert {"time", "level", "message", "logger"} <= set(line)
        assert "hunter2" not in str(line)
    assert server.log[-1]["message"] == "stopped"


async def test_beyond_loopback_needs_a_word(tmp_path: Path, database_url: str) -> None:
    """Refused with exit code 2 and the remedy; with INSECURE it serves."""
    code, _, err = await run("serve", cwd=tmp_path, host="0.0.0.0", database_url=database_url)
    assert code == 2
    assert "INSECURE" in err
    async with serve(tmp_path, host="0.0.0.0", insecure="true", database_url=database_url) as server:
        assert await server.stop(signal.SIGTERM) == 0


IMPORTED = """
import sys
from ingestor.cli import main
try:
    main(sys.argv[2:])
finally:
    print("imported:", *set(sys.argv[1].split(",")) & sys.modules.keys())
"""
SERVERS = "aiohttp,grpclib,google.protobuf,ingestor.app,ingestor.service,ingestor.transport"


def imported(unneeded: str, command: str, tmp_path: Path, **settings: str) -> tuple[str, str]:
    """What the command says, on either stream, and what of this it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, unneeded, *command.split()],
        cwd=tmp_path,
        env=environment(**settings),
        capture_output=True,
        check=False,
        text=True,
    )
    out, _, found = done.stdout.rpartition("imported:")
    return out + done.stderr, found.strip()


def test_help_waits_for_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """Half of a start is imports, of which it needs next to none."""
    said, found = imported("asyncio,pydantic,pyarrow", "--help", tmp_path)
    assert said.startswith("usage: ingestor")
    assert found == ""


@pytest.mark.parametrize(
    ("command", "sign"),
    [
        ("dead-letters list", "connection refused"),
        ("journal status", "no journal"),
        ("keys list", "no keys"),
    ],
)
def test_commands_that_are_no_server_wait_for_none(tmp_path: Path, command: str, sign: str) -> None:
    """They do what they are there for with neither of the protocols."""
    away = "postgresql://127.0.0.1:1/nowhere"
    said, found = imported(SERVERS, command, tmp_path, database_url=away, data_dir=str(tmp_path / "data"))
    assert (found, sign in said) == ("", True), said


@pytest.mark.parametrize("command", ["serve", "check", "migrate"])
@pytest.mark.parametrize("name", ["x" * 300, "/proc/x"])
async def test_a_data_dir_that_cannot_be_made_is_exit_code_5(tmp_path: Path, command: str, name: str) -> None:
    """One line; `check` sees it as `serve` does, although root may write wherever the modes are asked."""
    code, out, err = await run(command, cwd=tmp_path, data_dir=name, grpc_port="0", http_port="0")
    assert code == 5
    assert "Traceback" not in err
    assert "\n" not in err.strip()
    assert name[:20] in out + err


async def test_output_that_nobody_can_read_is_one_line(tmp_path: Path, database_url: str) -> None:
    """A reader that has gone, a disk that is full."""
    settings = environment(database_url=database_url, grpc_port="0", http_port="0")
    command = f"{sys.executable} -m ingestor check"
    for shell, reason in (
        (f"{command} > /dev/full", "no space left on device"),
        (f"(sleep 0.1; {command}) | true; exit ${{PIPESTATUS[0]}}", "broken pipe"),
    ):
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", shell), cwd=tmp_path, env=settings, stderr=asyncio.subprocess.PIPE
        )
        _, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 1
        assert err.decode() == f"ingestor: the output can't be written: {reason}\n"


async def test_an_ipv6_address_is_bracketed_before_a_port(tmp_path: Path, database_url: str) -> None:
    """So that what is logged can be pasted."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no ::1 here")
    async with serve(tmp_path, host="[::1]", database_url=database_url) as server:
        line = await server.until_logged("serves gRPC on")
        assert f"http://[::1]:{server.http_port}" in line["message"]
        assert await server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("command", ["serve", "migrate", "check"])
async def test_flags_are_written_out(tmp_path: Path, command: str) -> None:
    """A shortened flag would change its meaning when another one comes that begins alike."""
    code, _, err = await run(command, "--batch", "7", cwd=tmp_path)
    assert code == 2
    assert "unrecognized arguments" in err


async def test_what_a_driver_says_of_an_address_is_not_repeated() -> None:
    """It quotes what it took for a port."""
    with pytest.raises(DatabaseProblem, match="check DATABASE_URL") as caught:
        await inspect("postgresql://u:p@127.0.0.1:SECRET/d")
    assert "SECRET" not in str(caught.value)
