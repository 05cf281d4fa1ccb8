"""The cluster's files: made once, checked at every start.

It exists because `initdb` that is killed half-way leaves a directory that looks like a cluster and is none.
It refuses a directory that is not a cluster of this PostgreSQL's major version, and never removes one.

Invariants: `postgres` under the data directory is either absent or whole, because it is made under another
name and renamed; only `postgres.init-*` is ever removed.
"""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from ingestor.storage.embedded.binaries import Binaries
from ingestor.storage.embedded.errors import EmbeddedPostgresError
from ingestor.storage.embedded.identity import Identity
from ingestor.storage.embedded.parameters import sync_method
from ingestor.storage.embedded.process import run, told
from ingestor.storage.embedded.server_log import ServerLog

USER = "ingestor"
_UNFINISHED = "postgres.init-"
_INITDB_S_MAX = 180
_SWEEPS_MAX = 20
_OPTIONS = (
    f"--username={USER}",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--data-checksums",
    "--auth-local=trust",  # the socket's directory is 0700
    "--auth-host=reject",
    "--no-instructions",
)


async def ensure(pgdata: Path, binaries: Binaries, identity: Identity, log: ServerLog) -> None:
    """Leaves a whole cluster at `pgdata`, or raises."""
    await _sweep(pgdata.parent)
    if _is_empty(pgdata):
        await _create(pgdata, binaries, identity, log)
    _check_version(pgdata, binaries)


async def _create(pgdata: Path, binaries: Binaries, identity: Identity, log: ServerLog) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=pgdata.parent))
    try:
        if not identity.is_us:
            os.chown(unfinished, identity.uid, identity.gid, follow_symlinks=False)
        code = await _run_initdb(unfinished, binaries, identity, log)
        if code != 0:
            problem = f"cannot make the database in {pgdata} (initdb {told(code)})"
            raise EmbeddedPostgresError(f"{problem}{log.tail()}")
        _publish(unfinished, pgdata)
    finally:
        await _sweep(pgdata.parent)


async def _run_initdb(directory: Path, binaries: Binaries, identity: Identity, log: ServerLog) -> int | None:
    fd = log.open()
    try:
        command = [
            binaries.program("initdb"),
            "-D",
            str(directory),
            f"--sync-method={sync_method()}",
            *_OPTIONS,
        ]
        return await run(command, identity, fd, _INITDB_S_MAX)
    finally:
        os.close(fd)


async def _sweep(data_dir: Path) -> None:
    """Removes what killed attempts left; a process of one may still be writing there for a moment."""
    for _ in range(_SWEEPS_MAX):
        if await asyncio.to_thread(_removed, data_dir):
            return
        await asyncio.sleep(0.1)


def _removed(data_dir: Path) -> bool:
    for path in data_dir.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
    return not any(data_dir.glob(f"{_UNFINISHED}*"))


def _is_empty(pgdata: Path) -> bool:
    return not pgdata.exists() or not any(pgdata.iterdir())


def _check_version(pgdata: Path, binaries: Binaries) -> None:
    file = pgdata / "PG_VERSION"
    major = file.read_text(encoding="ascii", errors="replace").strip() if file.exists() else ""
    if not major.isdigit():
        raise EmbeddedPostgresError(
            f"{pgdata} holds files but no database: move it away, or set another INGESTOR_DATA_DIR"
        )
    if major != binaries.major:
        raise EmbeddedPostgresError(
            f"{pgdata} was written by PostgreSQL {major}, and this is {binaries.major}: "
            f"dump it with {major} and restore it into a new INGESTOR_DATA_DIR, or move it away"
        )


def _publish(unfinished: Path, pgdata: Path) -> None:
    """initdb has synced what is inside; the name must reach the disk too."""
    unfinished.rename(pgdata)
    fd = os.open(pgdata.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
