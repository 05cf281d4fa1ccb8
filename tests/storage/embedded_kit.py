"""What the tests of the embedded database share; there is no test in here.

It exists because killing an ingestor takes one in a process of its own, and because as root the server runs
as another user, who can't enter pytest's own temporary directories. It refuses to leave processes behind.
"""

import json
import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest

from ingestor.storage.embedded import binaries, identity, leftovers

IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="needs root, who can change users and mount file systems")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or needs the death signal")
SERVING_S_MAX = 5.0
_GONE_S_MAX = 5.0

Env = Mapping[str, str] | None

_HOLDER = """
import asyncio, json, sys
from pathlib import Path
import asyncpg
from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError

def say(**fields):
    print(json.dumps(fields), flush=True)

async def main(data_dir, sql):
    postgres = EmbeddedPostgres(Path(data_dir))
    say(stage="starting")
    try:
        dsn = await postgres.start()
    except EmbeddedPostgresError as error:
        return say(error=str(error))
    if sql:
        busy = await asyncpg.connect(dsn)
        task = asyncio.create_task(busy.execute(sql))
        await asyncio.sleep(0)
    say(dsn=dsn)
    await asyncio.to_thread(sys.stdin.read)
    await postgres.stop()
    say(stage="stopped")

asyncio.run(main(*sys.argv[1:]))
"""


class Holder:
    """An ingestor's process: runs the embedded database until its standard input ends."""

    def __init__(
        self, data_dir: Path, sql: str = "", user: str = "", env: Env = None, prefix: Sequence[str] = ()
    ) -> None:
        who: dict[str, Any] = {}
        python = sys.executable
        if user:
            entry = pwd.getpwnam(user)
            who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            python = python_for(user)
        self._process = subprocess.Popen(
            [*prefix, python, "-c", _HOLDER, str(data_dir), sql],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": _python_path()} | dict(env or {}),
            cwd="/",
            text=True,
            **who,
        )
        self.pid = self._process.pid
        assert self._said() == {"stage": "starting"}

    def dsn(self) -> str:
        """Waits until it serves."""
        said = self._said()
        assert "dsn" in said, said
        return str(said["dsn"])

    def error(self) -> str:
        """Waits until it has failed."""
        message = str(self._said()["error"])
        self._end()
        return message

    def kill(self) -> None:
        self._process.kill()
        self._end()

    def close(self) -> None:
        """Lets it stop the database and end."""
        assert self._process.stdin
        self._process.stdin.close()
        assert self._said() == {"stage": "stopped"}
        assert self._end() == 0

    def _end(self) -> int:
        assert self._process.stdin
        assert self._process.stdout
        code = self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        return code

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the holder ended with {self._process.wait()}"
        said: dict[str, Any] = json.loads(line)
        return said


class Hold(Protocol):
    def __call__(
        self, data_dir: Path, sql: str = "", user: str = "", env: Env = None, prefix: Sequence[str] = ()
    ) -> Holder: ...


def open_directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="ingestor test-", dir="/tmp")).resolve()
    path.chmod(0o755)
    return path


def server_uid(pgdata: Path) -> int:
    return pgdata.stat().st_uid


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres/postmaster.pid").read_text().split()[0])


def socket_directory(dsn: str) -> Path:
    return Path(dsn.partition("host=")[2].partition("&")[0])


def start_raw(data_dir: Path, *options: str) -> subprocess.Popen[bytes]:
    """A server on the cluster that no ingestor started; returns when it is up."""
    owner = identity.choose(data_dir / "postgres")
    who: dict[str, Any] = {"user": owner.uid, "group": owner.gid, "extra_groups": []} if IS_ROOT else {}
    command = [binaries.installed().program("postgres"), "-D", str(data_dir / "postgres"), *options]
    sockets = Path(tempfile.mkdtemp(dir=data_dir))
    os.chown(sockets, owner.uid, owner.gid)
    log = data_dir / "raw.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "-c", "listen_addresses=", "-k", str(sockets)], stderr=output, cwd="/", **who
        )
    until(lambda: b"ready to accept" in log.read_bytes())
    return server


def runs_as(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def open_files(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def names(directory: Path, pattern: str = "*") -> list[str]:
    return [path.name for path in directory.glob(pattern)]


@contextmanager
def process_titled(title: str, pgdata: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A living process of the server's user that is no server."""
    owner = identity.choose(pgdata)
    who: dict[str, Any] = {"user": owner.uid, "group": owner.gid, "extra_groups": []} if IS_ROOT else {}
    with subprocess.Popen([title, "600"], executable=shutil.which("sleep"), cwd="/", **who) as process:
        yield process
        process.kill()


def until(condition: Callable[[], object]) -> None:
    """For what gives no event: a file of another process."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for 10 s"
        time.sleep(0.005)


class Victims:
    """The processes of a server; taken while they live, so that their end is an event."""

    def __init__(self, data_dir: Path) -> None:
        pgdata = data_dir / "postgres"
        self.pids = [process.pid for process in leftovers.ours(pgdata, server_uid(pgdata))]
        assert self.pids
        self._fds = [os.pidfd_open(pid) for pid in self.pids]

    def assert_gone(self) -> None:
        deadline = time.monotonic() + _GONE_S_MAX
        try:
            for pid, fd in zip(self.pids, self._fds, strict=True):
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                assert poll.poll(max(0, deadline - time.monotonic()) * 1000), f"{pid} still runs"
        finally:
            for fd in self._fds:
                os.close(fd)


@cache
def python_for(user: str) -> str:
    """An interpreter of this version that `user` can run with our packages."""
    entry = pwd.getpwnam(user)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            tried = subprocess.run(
                [python, "-c", "import ingestor.storage.embedded"],
                env={"PYTHONPATH": _python_path()},
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=[],
                cwd="/",
                check=False,
                capture_output=True,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return python
    pytest.skip(f"{user} can run no {name} with our packages")


def _python_path() -> str:
    repository = str(Path(__file__).parents[2])
    return os.pathsep.join([repository, *(path for path in sys.path if path.endswith("-packages"))])
