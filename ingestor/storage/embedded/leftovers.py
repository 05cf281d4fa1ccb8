"""Servers and pid files that an earlier ingestor left behind.

It exists because after a kill -9 the old server is still going down for a moment, and where the kernel has
no death signal it is still up. It refuses to touch a server that some other program started.

Invariants: called only with the data directory's lock held, so that whatever runs there has lost its
ingestor; a process counts as ours by its user and by the cluster name that PostgreSQL puts into every title
(/proc/PID/cwd would say more, but root in a container may not read that of another user's process).
"""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingestor.storage.embedded.errors import EmbeddedPostgresError

_STEPS = ((signal.SIGQUIT, 2.5), (signal.SIGKILL, 2.0))
_POLL_S = 0.02
_PS_S_MAX = 10


@dataclass(frozen=True)
class Process:
    pid: int
    uid: int
    command: str


def cluster_name(pgdata: Path) -> str:
    """What our servers on `pgdata` are called in process titles.

    Made of the inode and not of the path, which may be the same in a container whose processes we see.
    """
    facts = pgdata.stat()
    return f"ingestor-{facts.st_dev:x}-{facts.st_ino:x}"


async def stop_leftovers(pgdata: Path, uid: int) -> None:
    """Ends every process of a server of ours on `pgdata`: PostgreSQL recovers from that at its next start."""
    for signum, seconds in _STEPS:
        kill_all(pgdata, uid, signum)
        for _ in range(round(seconds / _POLL_S)):
            if not ours(pgdata, uid):
                return
            await asyncio.sleep(_POLL_S)
    pids = ", ".join(str(process.pid) for process in ours(pgdata, uid))
    if pids:
        raise EmbeddedPostgresError(f"an old server on {pgdata} does not end (pid {pids}): kill it")


def kill_all(pgdata: Path, uid: int, signum: signal.Signals) -> None:
    for process in ours(pgdata, uid):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)


def ours(pgdata: Path, uid: int) -> list[Process]:
    if not pgdata.exists():
        return []
    name = cluster_name(pgdata)
    marks = (f"cluster_name={name}", f"postgres: {name}:")
    return [
        process for process in _all() if process.uid == uid and any(mark in process.command for mark in marks)
    ]


def clear_pid_file(pgdata: Path, uid: int) -> None:
    """Removes a pid file that means no server but would stop one: garbled, or of a reused pid."""
    path = pgdata / "postmaster.pid"
    try:
        first, _, _ = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return
    pid = int(first) if re.fullmatch(rb"\d{1,9}", first.strip()) else None
    holder = next((process for process in _all() if process.pid == pid), None)
    if holder and holder.uid == uid and "postgres" in holder.command and _works_in(holder, pgdata):
        raise EmbeddedPostgresError(f"another PostgreSQL (pid {pid}) runs on {pgdata}: stop it")
    if pid is None or holder:
        path.unlink()


def _works_in(process: Process, directory: Path) -> bool:
    try:
        return Path(f"/proc/{process.pid}/cwd").samefile(directory)
    except OSError:
        return str(directory) in process.command


def _all() -> Iterator[Process]:
    proc = Path("/proc")
    return _from_proc(proc) if (proc / "self").exists() else _from_ps()


def _from_proc(proc: Path) -> Iterator[Process]:
    for path in proc.iterdir():
        if path.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                yield Process(int(path.name), path.stat().st_uid, os.fsdecode(command))


def _from_ps() -> Iterator[Process]:
    listed = subprocess.run(
        ["/bin/ps", "-axww", "-o", "pid=,uid=,command="], capture_output=True, check=True, timeout=_PS_S_MAX
    )
    for line in os.fsdecode(listed.stdout).splitlines():
        pid, uid, command = [*line.split(maxsplit=2), ""][:3]
        yield Process(int(pid), int(uid), command)
