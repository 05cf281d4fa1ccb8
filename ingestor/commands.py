"""What `ingestor serve`, `migrate` and `check` do. They print, log and return exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from loguru import logger

from ingestor import __version__
from ingestor.app import App
from ingestor.errors import AddressProblem, DataDirProblem, StartupError
from ingestor.settings import Settings, unknown_variables
from ingestor.storage.database import inspect, open_database
from ingestor.storage.embedded import EmbeddedPostgres, EmbeddedPostgresError

LOST = 6
_INTERRUPTED = 130


async def serve(settings: Settings) -> int:
    """Serves until it is told to stop. Raises StartupError."""
    stop = _stop_signals()
    for name in unknown_variables(os.environ):
        logger.warning("the variable {} is none of ours: is it misspelt? (ingestor serve --help)", name)
    app = App(settings)
    starting = asyncio.ensure_future(app.start())
    await asyncio.wait([starting, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return 0
    addresses = starting.result()
    logger.info("storing in {} (metrics is {})", app.facts, _kind(app.facts.table))
    logger.bind(grpc_port=addresses.grpc_port, http_port=addresses.http_port).info(
        "ingestor {} serves gRPC on {}:{} and HTTP on http://{}:{}",
        __version__,
        addresses.host,
        addresses.grpc_port,
        addresses.host,
        addresses.http_port,
    )
    await stop.wait()
    logger.info("stopping: no new calls, those under way are answered (Ctrl-C again ends at once)")
    lost = await app.stop()
    logger.info("stopped")
    return LOST if lost else 0


async def migrate(settings: Settings) -> int:
    """Brings the schema up to date. Raises StartupError."""
    async with _database_url(settings) as url:
        database = await open_database(url)
        await database.close(5.0)
    for migration in database.applied:
        _say(f"applied {migration.version:04} {migration.name}")
    if not database.applied:
        _say("nothing to do: the schema is up to date")
    _say(f"{database.facts}; metrics is {_kind(database.facts.table)}")
    return 0


async def check(settings: Settings) -> int:
    """Says what `serve` would use, and what would stop it; changes nothing. Returns the first problem's exit
    code, 0 without any."""
    problems: list[StartupError] = []
    for name in unknown_variables(os.environ):
        _say(f"warning   the variable {name} is none of ours: is it misspelt?")
    _say(f"settings  valid; {_changed(settings)}")
    try:
        _say(f"database  {await _look_at_database(settings)}")
    except StartupError as error:
        problems.append(error)
    for protocol, port in (("gRPC", settings.grpc_port), ("HTTP", settings.http_port)):
        try:
            _say(f"{protocol.lower():9} {_try_port(settings.host, port, protocol)}")
        except StartupError as error:
            problems.append(error)
    for problem in problems:
        _say(f"problem   {problem}")
    return problems[0].exit_code if problems else 0


async def _look_at_database(settings: Settings) -> str:
    if settings.embedded and not (settings.data_dir / "postgres").exists():
        _check_can_create(settings.data_dir)
        return f"embedded PostgreSQL, to be created in {settings.data_dir}"
    async with _database_url(settings) as url:
        facts, pending = await inspect(url)
    where = f"embedded in {settings.data_dir}: " if settings.embedded else ""
    todo = ", ".join(f"{migration.version:04} {migration.name}" for migration in pending)
    return f"{where}{facts}; metrics is {_kind(facts.table)}; migrations to apply: {todo or 'none'}"


@asynccontextmanager
async def _database_url(settings: Settings) -> AsyncIterator[str]:
    """The database's address; an embedded one runs for as long as the block."""
    if not settings.embedded:
        yield settings.database_url.get_secret_value()
        return
    embedded = EmbeddedPostgres(settings.data_dir)
    try:
        yield await embedded.start()
    except EmbeddedPostgresError as error:
        raise DataDirProblem(str(error)) from error
    finally:
        await embedded.stop()


def _check_can_create(data_dir: Path) -> None:
    existing = next(path for path in (data_dir, *data_dir.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        msg = f"DATA_DIR {data_dir} can't be created: {existing} is no directory that this user may write to"
        raise DataDirProblem(msg)


def _try_port(host: str, port: int, protocol: str) -> str:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise AddressProblem.listening(protocol, host, port, error) from error
    return f"{host}:{port or 'a free port'} can be listened on"


def _changed(settings: Settings) -> str:
    names = sorted(name.upper() for name in settings.model_fields_set)
    return f"not the default: {', '.join(names)}" if names else "all defaults"


def _kind(table: str) -> str:
    return {
        "hypertable": "a hypertable",
        "partitioned": "partitioned by week",
        "ordinary": "an ordinary table",
        "absent": "not there yet",
    }[table]


def _stop_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once."""
    stop = asyncio.Event()

    def received() -> None:
        if stop.is_set():
            # The embedded database notices by itself; there is nothing that we could still do in order.
            os._exit(_INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)
    return stop


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
