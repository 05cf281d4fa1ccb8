"""The life of an embedded database: it starts, serves, keeps what it was given, and stops."""

import asyncio
import os
import signal
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
import uvloop

from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, leftovers
from ingestor.storage.embedded.lock import DataDirLock
from tests.storage.embedded_kit import (
    IS_ROOT,
    SERVING_S_MAX,
    Victims,
    environment,
    names,
    on_linux,
    open_files,
    runs_as,
    server_pid,
    server_uid,
    socket_directory,
)


@pytest.fixture
async def postgres(data_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(data_dir)
    yield postgres
    await postgres.stop()


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_data_survives_a_restart(data_dir: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """What was committed is there after stop and start, on either event loop."""

    async def live() -> None:
        postgres = EmbeddedPostgres(data_dir, database='some-"name')
        dsn = await postgres.start()
        await ask(dsn, "DROP TABLE IF EXISTS kept")
        await ask(dsn, "CREATE TABLE kept AS SELECT 7 AS seven")
        await postgres.stop()
        dsn = await postgres.start()
        assert await ask(dsn, "SELECT seven FROM kept") == 7
        assert await ask(dsn, "SELECT current_database()::text") == 'some-"name'
        await postgres.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(live())


async def test_settings(postgres: EmbeddedPostgres) -> None:
    """It is durable, speaks UTF-8 and UTC, checks its pages, and listens on no network."""
    dsn = await postgres.start()
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "wal_level": "minimal",
    }
    for name, value in expected.items():
        assert await ask(dsn, f"SELECT current_setting('{name}')") == value, name
    assert await ask(dsn, "SELECT upper('ä')") == "Ä"


async def test_only_its_user_gets_to_the_socket(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    """The socket's directory belongs to the server's user, 0700, is short, and is removed by stop."""
    directory = socket_directory(await postgres.start())
    facts = directory.lstat()
    assert stat.S_IMODE(facts.st_mode) == 0o700
    assert facts.st_uid == server_uid(data_dir / "postgres")
    assert len(os.fsencode(directory / ".s.PGSQL.5432.lock")) <= 107
    await postgres.stop()
    assert not directory.exists()
    assert not (data_dir / "postgres.socket").exists()


async def test_start_and_stop_can_be_repeated(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    """A second start returns the same database, a second stop and one without a start do nothing."""
    await postgres.stop()
    dsn = await postgres.start()
    pid = server_pid(data_dir)
    assert await postgres.start() == dsn
    assert server_pid(data_dir) == pid
    await asyncio.gather(postgres.stop(), postgres.stop())
    assert not leftovers.ours(data_dir / "postgres", server_uid(data_dir / "postgres"))


@pytest.mark.parametrize(
    "name",
    ["with spaces, ünïcödé-数据, $HOME and \"`'\\", "long-" + "/".join(["x" * 190] * 4)],
    ids=["strange", "long"],
)
async def test_any_path(place: Path, name: str) -> None:
    """The data directory's name doesn't matter: spaces, letters, what a shell would eat, and its length."""
    postgres = EmbeddedPostgres(place / name)
    assert await ask(await postgres.start(), "SELECT 1") == 1
    await postgres.stop()


@on_linux
async def test_the_server_is_alone(
    postgres: EmbeddedPostgres, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leads its own session, has none of our descriptors and secrets, and never runs as root."""
    monkeypatch.setenv("INGESTOR_SECRET", "hush")
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    await postgres.start()
    pid = server_pid(data_dir)
    assert os.getsid(pid) == pid
    assert runs_as(pid) == server_uid(data_dir / "postgres") != 0
    assert b"INGESTOR" not in environment(pid)
    assert not [name for name in open_files(pid) if name.endswith("postgres.lock")]
    os.close(write_end)
    assert os.read(read_end, 1) == b"", "a child still holds the pipe"
    os.close(read_end)


async def test_a_killed_server_is_noticed(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    """`exited` says why, and start serves again within 5 s though the server's children were orphaned."""
    await postgres.start()
    os.kill(server_pid(data_dir), signal.SIGKILL)
    error = await asyncio.wait_for(postgres.exited, 5)
    assert "killed by SIGKILL" in str(error)
    began = time.monotonic()
    assert await ask(await postgres.start(), "SELECT 1") == 1
    assert time.monotonic() - began < SERVING_S_MAX
    assert not postgres.exited.done()


async def test_an_asked_for_stop_is_no_exit(postgres: EmbeddedPostgres) -> None:
    """`exited` stays pending after stop, and a watcher that gives up does not spoil it for another."""
    with pytest.raises(RuntimeError):
        _ = postgres.exited
    await postgres.start()
    postgres.exited.cancel()
    exited = postgres.exited
    await postgres.stop()
    assert not exited.done()


@on_linux
async def test_a_stuck_server_is_stopped(
    postgres: EmbeddedPostgres, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers no signal (here: frozen) is killed, and so are its processes."""
    steps = ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.1), (signal.SIGKILL, 5.0))
    monkeypatch.setattr("ingestor.storage.embedded.server._STOP", steps)
    await postgres.start()
    victims = Victims(data_dir)
    os.kill(server_pid(data_dir), signal.SIGSTOP)
    await postgres.stop()
    victims.assert_gone()


@pytest.mark.parametrize("stage", ["initdb", "serve"])
async def test_a_cancelled_start_leaves_nothing(
    place: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Whether initdb or the server was running: no process, no half cluster, no lock is left."""
    reached = asyncio.Event()

    async def hang(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    used, where = {
        "initdb": (place, "process.Child.ended_within"),
        "serve": (data_dir, "readiness.ensure_database"),
    }[stage]
    with monkeypatch.context() as patch:
        patch.setattr(f"ingestor.storage.embedded.{where}", hang)
        start = asyncio.create_task(EmbeddedPostgres(used).start())
        await reached.wait()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not names(used, "postgres/postmaster.pid")
    assert not names(used, "postgres.init-*")
    DataDirLock(used).acquire()


async def test_only_the_main_thread_starts_it(postgres: EmbeddedPostgres) -> None:
    """The kernel's death signal follows the starting thread, so another one is refused."""
    refused = asyncio.to_thread(asyncio.run, postgres.start())
    with pytest.raises(EmbeddedPostgresError, match="main thread"):
        await refused


async def test_the_log_is_bounded(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    """A log of over 10 MB is cut to its end at start."""
    with (data_dir / "postgres.log").open("ab") as log:
        log.truncate(11 * 1024 * 1024)
    await postgres.start()
    assert (data_dir / "postgres.log").stat().st_size < 2 * 1024 * 1024


@pytest.mark.skipif(IS_ROOT, reason="root's server is another user, who can't use it")
async def test_the_runtime_directory_is_used(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG_RUNTIME_DIR is the first choice for the socket."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert socket_directory(await postgres.start()).parent == tmp_path


async def test_variables_for_other_servers_do_not_reach_it(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PG* is what an operator sets for the production database."""
    for name, value in {
        "PGHOST": "db.invalid",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGPASSWORD": "x",
        "PGDATABASE": "other",
        "PGSSLMODE": "verify-full",
        "PGTARGETSESSIONATTRS": "standby",
    }.items():
        monkeypatch.setenv(name, value)
    assert (
        await ask(await postgres.start(), "SELECT current_user || '@' || current_database()")
        == "ingestor@ingestor"
    )
