"""How the command ends when it is told to: what is acknowledged is stored, what has begun is undone, and the exit
code says how it went."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.server_process import begin, environment, launch, run, serve
from tests.stalling_proxy import stalling

GOOD = b'{"serviceName":"s","metricName":"m","value":1}'


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
    assert line["message"].startswith("1 metrics that were taken were not stored")


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


async def test_a_signal_ends_a_start_that_the_database_holds_up(open_path: Path, database_url: str) -> None:
    """It waits for a lock, and then there is no answer any more, not even that the statement was given up."""
    assert (await run("migrate", cwd=open_path, database_url=database_url))[0] == 0
    connection = await asyncpg.connect(database_url)
    async with stalling(database_url) as (url, proxy):
        await connection.execute("BEGIN; LOCK TABLE ingestor_migrations")
        server = await launch(open_path, database_url=url)
        async with asyncio.timeout(20):
            while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        proxy.flowing.clear()
        try:
            assert await server.stop(signal.SIGTERM, within_s=15) == 0
        finally:
            if server.process.returncode is None:
                server.process.kill()
                await server.ended()
    await connection.close()


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


STUBBORN = """
import asyncio, sys
from ingestor.cli import running
from ingestor.errors import AddressProblem
async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("goes on", flush=True)
async def work():
    asyncio.get_running_loop().left = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    {end}
running._REST_S_MAX = 0.2
sys.exit(running.until_done(work()))
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("return 3", 3, ""),
        ("raise AddressProblem('port 8080 is taken')", 4, "ingestor: port 8080 is taken\n"),
        ("raise KeyError('ours')", 1, "KeyError: 'ours'\n"),
    ],
)
def test_what_does_not_end_does_not_keep_the_process(tmp_path: Path, end: str, code: int, said: str) -> None:
    """A task that goes on whenever it is told to end, by a mistake of ours or of a driver: all else is done, and
    why it ended is told."""
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN.format(end=end)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (code, b"goes on\n")
    assert done.stderr.decode().endswith(said)
    assert bool(said) == bool(done.stderr)
