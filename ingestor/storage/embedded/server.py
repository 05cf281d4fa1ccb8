"""The embedded PostgreSQL: one server, started, watched and stopped by the ingestor that uses it.

It exists so that the ingestor runs on a machine that has no database. It refuses to share its data directory
and to leave a server behind.

Invariants: what `start` has taken (lock, socket directory, process) is given back in the reverse order by
`stop`, by a failed or cancelled `start`, and, after a kill -9, by the kernel and the next start; `start` and
`stop` never overlap.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ParamSpec, TypeVar

from ingestor.storage.embedded import binaries, cluster, identity, leftovers, parameters, readiness
from ingestor.storage.embedded.binaries import Binaries
from ingestor.storage.embedded.errors import EmbeddedPostgresError, explained
from ingestor.storage.embedded.identity import Identity
from ingestor.storage.embedded.lock import DataDirLock
from ingestor.storage.embedded.process import Child, spawn, told
from ingestor.storage.embedded.server_log import ServerLog
from ingestor.storage.embedded.sockets import SocketDirectory

_P = ParamSpec("_P")
_T = TypeVar("_T")

_logger = logging.getLogger(__name__)
# A fast shutdown writes a checkpoint; an immediate one doesn't, and its next start recovers.
_STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 7.0), (signal.SIGKILL, 5.0))
_LOG_CHECK_S = 60.0
_PATH_BYTES_MAX = 900  # PostgreSQL builds file names in 1,024 bytes


class EmbeddedPostgres:
    def __init__(self, data_dir: Path, *, database: str = "ingestor") -> None:
        self._data_dir = data_dir
        self._database = database
        self._turn = asyncio.Lock()
        self._taken = AsyncExitStack()
        self._dsn: str | None = None
        self._exited: asyncio.Future[EmbeddedPostgresError] | None = None

    async def start(self) -> str:
        """Returns a DSN of the ready database; on any failure nothing is left running.

        Harmless when it runs; when the server has died, it is started anew.
        """
        async with self._turn:
            if self._exited is not None and self._exited.done():
                await self._release()
            if self._dsn is None:
                try:
                    with explained(self._data_dir):
                        self._dsn = await self._start()
                except BaseException:  # cancelled, too: no server may stay behind; it is raised again
                    await self._release()
                    raise
            return self._dsn

    async def stop(self) -> None:
        """Ends the server in bounded time and removes its socket; harmless when it doesn't run."""
        async with self._turn:
            await self._release()

    async def _release(self) -> None:
        self._dsn = None
        await self._taken.aclose()

    @property
    def exited(self) -> asyncio.Future[EmbeddedPostgresError]:
        """Done once the server has ended without being asked to by `stop`; the result says why.

        Stays pending after `stop`. Every access gives a future of its own: cancelling it harms nobody.
        """
        if self._exited is None:
            raise RuntimeError("start() comes first")
        return asyncio.shield(self._exited)

    async def _start(self) -> str:
        data_dir = _checked(self._data_dir)
        pgdata = data_dir / "postgres"
        owner = identity.choose(pgdata)
        programs = binaries.installed()
        await _thread_to_its_end(_make_data_dir, data_dir, owner)
        lock = DataDirLock(data_dir)
        self._taken.callback(lock.release)
        lock.acquire()
        await leftovers.stop_leftovers(pgdata, owner.uid)
        leftovers.clear_pid_file(pgdata, owner.uid)
        programs = await _thread_to_its_end(_runnable, programs, data_dir, owner)
        log = ServerLog(data_dir / "postgres.log")
        await cluster.ensure(pgdata, programs, owner, log)
        sockets = SocketDirectory(data_dir, owner)
        self._taken.callback(sockets.remove)
        return await self._serve(pgdata, programs, owner, log, sockets.make())

    async def _serve(
        self, pgdata: Path, programs: Binaries, owner: Identity, log: ServerLog, socket_directory: Path
    ) -> str:
        arguments = parameters.arguments(pgdata, socket_directory, leftovers.cluster_name(pgdata))
        fd = log.open()
        try:
            # Not SIGKILL: on SIGQUIT the server ends its own processes first, even busy ones.
            child = spawn([programs.program("postgres"), *arguments], owner, fd, signal.SIGQUIT)
        finally:
            os.close(fd)
        self._taken.push_async_callback(_end, child, pgdata, owner)
        connection = await readiness.wait_until_ready(child, socket_directory, log)
        try:
            await readiness.ensure_database(connection, self._database)
        finally:
            connection.terminate()
        self._watch(child, log)
        _logger.info(
            "the embedded PostgreSQL %s runs as %s (pid %d)", programs.version, owner.name, child.pid
        )
        return readiness.dsn(socket_directory, self._database)

    def _watch(self, child: Child, log: ServerLog) -> None:
        exited: asyncio.Future[EmbeddedPostgresError] = asyncio.get_running_loop().create_future()

        def notice(ended: asyncio.Future[int]) -> None:
            exited.set_result(EmbeddedPostgresError(f"PostgreSQL {told(ended.result())}{log.tail()}"))

        child.exited.add_done_callback(notice)
        self._exited = exited
        self._taken.callback(asyncio.create_task(_keep_short(log)).cancel)
        self._taken.callback(child.exited.remove_done_callback, notice)


def _checked(data_dir: Path) -> Path:
    resolved = data_dir.resolve()
    if len(os.fsencode(resolved)) > _PATH_BYTES_MAX or "\n" in str(resolved):
        raise EmbeddedPostgresError(
            f"PostgreSQL cannot use {str(resolved)[:80]!r}...: set INGESTOR_DATA_DIR to a path of one line "
            f"and at most {_PATH_BYTES_MAX} bytes"
        )
    return resolved


async def _thread_to_its_end(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Calls it in a thread, which ends before this does, also when cancelled: it may be making a directory that
    whoever cancelled is about to remove."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def _make_data_dir(data_dir: Path, owner: Identity) -> None:
    """Makes it and what is missing above it; what exists is left as it is, and must let `owner` pass."""
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    there = data_dir if not missing else missing[-1].parent
    blocked = identity.unreachable(owner, [there])
    if blocked:
        raise EmbeddedPostgresError(
            f"PostgreSQL runs as {owner.name}, who cannot enter {blocked}: "
            "set INGESTOR_DATA_DIR to a directory that every user can reach (such as /var/lib/ingestor), "
            "or run the ingestor as an ordinary user"
        )
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        if not owner.is_us:
            path.chmod(0o755)  # whatever the umask is


def _runnable(programs: Binaries, data_dir: Path, owner: Identity) -> Binaries:
    if identity.unreachable(owner, programs.needed()):
        programs = binaries.copied(programs, data_dir)
    binaries.prune(data_dir, programs)
    return programs


async def _end(child: Child, pgdata: Path, owner: Identity) -> None:
    try:
        if not await child.end(_STOP):
            _logger.error("the embedded PostgreSQL (pid %d) does not end", child.pid)
        elif child.exited.result() == -signal.SIGKILL:
            await leftovers.stop_leftovers(pgdata, owner.uid)  # it could not end its own processes
    finally:
        child.send(signal.SIGQUIT)  # when cancelled while it is waiting


async def _keep_short(log: ServerLog) -> None:
    while True:
        await asyncio.sleep(_LOG_CHECK_S)
        try:
            log.trim()
        except (OSError, EmbeddedPostgresError) as error:
            _logger.warning("cannot shorten PostgreSQL's log: %s", error)
