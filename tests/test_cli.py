"""The command as an operator meets it: help, exit codes, one line for each error."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from ingestor import __version__
from ingestor.settings import Settings
from tests.server_process import run, serve

GOOD = b'{"serviceName":"s","metricName":"m","value":1}'


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


async def test_check_says_what_would_be_used_and_changes_nothing(tmp_path: Path, database_url: str) -> None:
    """Settings, database, pending migrations, ports; a misspelt variable is pointed out."""
    options = {"database_url": database_url, "grpc_port": "0", "http_port": "0", "batchsize": "7"}
    for _ in range(2):
        code, out, _ = await run("check", cwd=tmp_path, **options)
        assert code == 0
        assert "PostgreSQL 18" in out
        assert "metrics is not there yet" in out
        assert "0002 metrics" in out
        assert "INGESTOR_BATCHSIZE is none of ours" in out


async def test_check_creates_no_data_dir(tmp_path: Path) -> None:
    """An embedded database is created by serve, not by a look."""
    code, out, _ = await run(
        "check", cwd=tmp_path, data_dir=str(tmp_path / "data"), grpc_port="0", http_port="0"
    )
    assert code == 0
    assert f"to be created in {tmp_path}/data" in out
    assert not (tmp_path / "data").exists()


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


async def test_ctrl_c_stores_what_is_queued(tmp_path: Path, database_url: str) -> None:
    """One SIGINT: what was acknowledged is in the database when the process ends with 0."""
    async with serve(tmp_path, database_url=database_url, flush_interval="1h") as server:
        async with aiohttp.ClientSession() as http:
            await http.post(f"http://127.0.0.1:{server.http_port}/v1/metrics", data=GOOD)
        assert await server.stop(signal.SIGINT) == 0
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM metrics") == 1
    await connection.close()


async def test_what_could_not_be_stored_is_said_and_exit_code_6(tmp_path: Path, database_url: str) -> None:
    """A database that takes nothing until DRAIN_TIMEOUT is over: the loss is counted, logged, and in the code."""
    flags = {"database_url": database_url, "flush_interval": "1h", "drain_timeout": "500ms"}
    async with serve(tmp_path, **flags) as server:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
            async with aiohttp.ClientSession() as http:
                await http.post(f"http://127.0.0.1:{server.http_port}/v1/metrics", data=GOOD)
            assert await server.stop(signal.SIGTERM, within_s=10) == 6
        await connection.close()
    [line] = [line for line in server.log if line["level"] == "ERROR"]
    assert line["message"].startswith("1 acknowledged metrics were not stored")


async def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, database_url: str) -> None:
    """With 130, however long draining might still take."""
    flags = {"database_url": database_url, "flush_interval": "1h", "drain_timeout": "60s"}
    async with serve(tmp_path, **flags) as server:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
            async with aiohttp.ClientSession() as http:
                await http.post(f"http://127.0.0.1:{server.http_port}/v1/metrics", data=GOOD)
            server.process.send_signal(signal.SIGINT)
            await server.until_logged("storing 1 queued")
            assert await server.stop(signal.SIGINT, within_s=5) == 130
        await connection.close()


async def test_beyond_loopback_needs_a_word(tmp_path: Path, database_url: str) -> None:
    """Refused with exit code 2 and the remedy; with INSECURE it serves."""
    code, _, err = await run("serve", cwd=tmp_path, host="0.0.0.0", database_url=database_url)
    assert code == 2
    assert "INSECURE" in err
    async with serve(tmp_path, host="0.0.0.0", insecure="true", database_url=database_url) as server:
        assert await server.stop(signal.SIGTERM) == 0
