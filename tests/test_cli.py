"""The command as an operator meets it: help, exit codes, one line for each error."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from ingestor import __version__
from ingestor.errors import DatabaseProblem
from ingestor.settings import Settings
from ingestor.storage.opening import inspect
from tests.server_process import ROOT, begin, environment, run, serve

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


async def test_check_creates_no_data_dir(open_path: Path) -> None:
    """An embedded database is created by serve, not by a look."""
    code, out, _ = await run(
        "check", cwd=open_path, data_dir=str(open_path / "data"), grpc_port="0", http_port="0"
    )
    assert code == 0
    assert f"to be created in {open_path}/data" in out
    assert not (open_path / "data").exists()


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


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGHUP] * 2, [signal.SIGTERM] * 2])
async def test_a_signal_stores_what_is_queued(
    tmp_path: Path, database_url: str, numbers: list[signal.Signals]
) -> None:
    """Ctrl-C, a closed terminal (whose shell says it, too), SIGTERM (which `timeout` sends twice):
    what was acknowledged is in the database when the process ends with 0."""
    async with serve(tmp_path, database_url=database_url, flush_interval="1h") as server:
        async with aiohttp.ClientSession() as http:
            await http.post(f"http://127.0.0.1:{server.http_port}/v1/metrics", data=GOOD)
        for number in numbers:
            server.process.send_signal(number)
        assert await server.ended() == 0
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM metrics") == 1
    await connection.close()


async def test_what_could_not_be_stored_is_said_and_exit_code_6(tmp_path: Path, database_url: str) -> None:
    """A database that takes nothing until DRAIN_TIMEOUT is over: the loss is counted, logged, and in the code."""
    flags = {
        "database_url": database_url,
        "journal": "memory",
        "flush_interval": "1h",
        "drain_timeout": "500ms",
    }
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


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
async def test_a_signal_undoes_what_migrate_has_begun(
    open_path: Path, number: signal.Signals, code: int
) -> None:
    """In the middle of initdb: nothing half-made is left, nothing runs, and nothing is printed."""
    process = await begin("migrate", cwd=open_path, env=environment(data_dir=str(open_path / "data")))
    async with asyncio.timeout(30):
        while not list(open_path.glob("data/postgres.init-*/PG_VERSION")):
            assert process.returncode is None
            await asyncio.sleep(0.01)  # initdb tells nobody
    process.send_signal(number)
    process.send_signal(number)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert not list(open_path.glob("data/postgres.init-*"))
    assert not list(open_path.glob("data/postgres.socket"))


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("command", ["migrate", "check"])
async def test_a_signal_ends_a_wait_for_a_database(
    tmp_path: Path, command: str, number: signal.Signals, code: int
) -> None:
    """A server that accepts and says nothing; no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d?sslmode=disable"
        process = await begin(command, cwd=tmp_path, env=environment(database_url=url))
        connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silent), 30)
        process.send_signal(number)
        _, err = await asyncio.wait_for(process.communicate(), 30)
        connection.close()
    assert process.returncode == code
    assert b"Traceback" not in err


IMPORTING = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[1:] = ["check"]
from ingestor.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["argparse", "pydantic", "pyarrow", "asyncpg", "uvloop"])
def test_ctrl_c_while_modules_are_imported_is_no_traceback(tmp_path: Path, module: str) -> None:
    """The first third of a second is for imports, and Ctrl-C may come then."""
    script = IMPORTING.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr == b""


@pytest.mark.parametrize("command", ["serve", "check", "migrate"])
@pytest.mark.parametrize("name", ["x" * 300, "/proc/x"])
async def test_a_data_dir_that_cannot_be_made_is_exit_code_5(tmp_path: Path, command: str, name: str) -> None:
    """One line; `check` sees it as `serve` does, although root may write wherever the modes are asked."""
    code, out, err = await run(command, cwd=tmp_path, data_dir=name, grpc_port="0", http_port="0")
    assert code == 5
    assert "Traceback" not in err
    assert "\n" not in err.strip()
    assert name[:20] in out + err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as somebody else")
async def test_check_sees_that_postgresql_may_not_pass(tmp_path: Path) -> None:
    """pytest's tmp_path lies under a directory of mode 0700, which the user that PostgreSQL runs as can't enter."""
    for command in ("check", "serve"):
        code, out, err = await run(
            command, cwd=tmp_path, data_dir=str(tmp_path / "data"), grpc_port="0", http_port="0"
        )
        assert code == 5
        assert "who cannot enter" in out + err
        assert not (tmp_path / "data").exists()


AS_NOBODY = """
import encodings.idna, os, sys
import uvloop
from ingestor import commands, demo
from ingestor.cli import main
os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


def as_nobody_in(folder: Path, code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs Python as nobody, in `folder`, once it has imported what root alone may read."""
    script = AS_NOBODY + code
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**environment(**settings), "PYTHONPATH": f"{ROOT}:{ROOT}/gen"},
        capture_output=True,
        text=True,
        check=False,
    )


CHECK = "sys.exit(main(['check', '--grpc-port', '0', '--http-port', '0']))"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_data_dir_that_one_may_not_enter_is_one_line(tmp_path: Path, open_path: Path) -> None:
    """`check` as somebody who may not even look."""
    tmp_path.chmod(0o700)
    done = as_nobody_in(open_path, CHECK, data_dir=str(tmp_path / "x"))
    assert done.returncode == 5, done.stderr
    assert done.stderr == ""
    assert "permission denied" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_env_file_that_one_may_not_read_is_one_line(tmp_path: Path, open_path: Path) -> None:
    """Neither the file, nor the current directory."""
    (open_path / ".env").write_text("INGESTOR_BATCH_SIZE=1\n")
    (open_path / ".env").chmod(0o600)
    tmp_path.chmod(0o700)
    for folder in (open_path, tmp_path):
        done = as_nobody_in(folder, CHECK)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "ingestor: .env can't be read: permission denied\n"


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


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("CREATE TABLE metrics (a int)", "can't be adopted"),
        ("CREATE TABLE label_sets (a int)", "already exists"),
        ("ALTER DATABASE {} SET default_transaction_read_only = on", "is read-only"),
    ],
)
async def test_check_finds_what_serve_would_fail_with(
    tmp_path: Path, database_url: str, statement: str, problem: str
) -> None:
    """Exit code 3, and the database as it was."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(statement.format(await connection.fetchval("SELECT current_database()")))
    for _ in range(2):
        code, out, _ = await run(
            "check", cwd=tmp_path, database_url=database_url, grpc_port="0", http_port="0"
        )
        assert code == 3, out
        assert problem in out
        assert await connection.fetchval("SELECT to_regclass('ingestor_migrations')") is None
    await connection.close()


async def test_check_finds_a_role_that_may_not_migrate(tmp_path: Path, database_url: str) -> None:
    """A role without CREATE on the schema, while migrations are pending."""
    connection = await asyncpg.connect(database_url)
    role = f"reader_{await connection.fetchval('SELECT current_database()')}"
    await connection.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    url = database_url.replace("user=ingestor", f"user={role}")
    try:
        code, out, _ = await run("check", cwd=tmp_path, database_url=url, grpc_port="0", http_port="0")
    finally:
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()
    assert code == 3
    assert "permission denied for schema public" in out


async def test_misspelt_names_in_the_env_file_are_pointed_out(tmp_path: Path, database_url: str) -> None:
    """As those of the environment are."""
    (tmp_path / ".env").write_text("INGESTOR_BATCHSIZE=7\nOTHER=1\n")
    _, out, _ = await run("check", cwd=tmp_path, database_url=database_url, grpc_port="0", http_port="0")
    assert "INGESTOR_BATCHSIZE is none of ours" in out
    assert "OTHER" not in out


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


async def test_check_waits_for_no_lock(tmp_path: Path, database_url: str) -> None:
    """A table to be adopted, which somebody holds: it can't be tried, and nobody is kept waiting for long."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "CREATE TABLE metrics (time timestamptz, service_name text, metric_name text, value float8)"
    )
    async with connection.transaction():
        await connection.execute("LOCK TABLE metrics IN ROW EXCLUSIVE MODE")
        code, out, _ = await run(
            "check", cwd=tmp_path, database_url=database_url, grpc_port="0", http_port="0"
        )
    await connection.close()
    assert code == 0, out
    assert "migrations to apply: 0001" in out


async def test_check_finds_a_role_that_may_not_store(tmp_path: Path, database_url: str) -> None:
    """In a database that is migrated, with the GRANT that is missing."""
    await run("migrate", cwd=tmp_path, database_url=database_url)
    connection = await asyncpg.connect(database_url)
    role = f"reader_{await connection.fetchval('SELECT current_database()')}"
    await connection.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ingestor_migrations TO {role}")
    url = database_url.replace("user=ingestor", f"user={role}")
    try:
        code, out, _ = await run("check", cwd=tmp_path, database_url=url, grpc_port="0", http_port="0")
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await connection.close()
    assert code == 3
    assert "GRANT INSERT ON metrics" in out


async def test_what_a_driver_says_of_an_address_is_not_repeated() -> None:
    """It quotes what it took for a port."""
    with pytest.raises(DatabaseProblem, match="check DATABASE_URL") as caught:
        await inspect("postgresql://u:p@127.0.0.1:SECRET/d")
    assert "SECRET" not in str(caught.value)
