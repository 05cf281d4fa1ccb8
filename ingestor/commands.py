"""What `ingestor serve`, `migrate` and `check` do. They print, log and return exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from loguru import logger

from ingestor import __version__
from ingestor.access import KeysFile
from ingestor.app import App
from ingestor.database_address import database_url
from ingestor.errors import AddressProblem, DataDirProblem, StartupError
from ingestor.garbage import collected_aside
from ingestor.journal.directory import DiskDirectory
from ingestor.output import say
from ingestor.settings import Settings, misspelt
from ingestor.storage.embedded import EmbeddedPostgresError, identity
from ingestor.storage.opening import inspect, open_database
from ingestor.threads import step_aside
from ingestor.transport.tls import warnings
from ingestor.trust import check_keys, keys_problems, tls_files

LOST = 6
_INTERRUPTED = 130


async def serve(settings: Settings) -> int:
    """Serves until it is told to stop. Raises StartupError."""
    stop = _stop_signals()
    step_aside()
    for name in misspelt():
        logger.warning("the variable {} is none of ours: is it misspelt? (ingestor serve --help)", name)
    app = App(settings)
    starting = asyncio.ensure_future(app.start())
    await asyncio.wait([starting, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return 0
    addresses = starting.result()
    if app.database is not None:
        facts = app.database.facts
        logger.info("storing in {} (metrics is {})", facts, _kind(facts.table))
    scheme = "http" if settings.tls_cert is None else "https"
    logger.bind(grpc_port=addresses.grpc_port, http_port=addresses.http_port).info(
        "ingestor {} serves gRPC on {}:{} and HTTP on {}://{}:{}",
        __version__,
        _bracketed(addresses.host),
        addresses.grpc_port,
        scheme,
        _bracketed(addresses.host),
        addresses.http_port,
    )
    logger.info("the page is at {}://{}:{}/", scheme, _bracketed(addresses.host), addresses.http_port)
    async with collected_aside(app.held_entries):
        await stop.wait()
    logger.info("stopping: no new calls, those under way are answered (Ctrl-C again ends at once)")
    lost = await app.stop()
    logger.info("stopped")
    return LOST if lost else 0


async def migrate(settings: Settings) -> int:
    """Brings the schema up to date. Raises StartupError."""
    async with database_url(settings) as url:
        database = await open_database(url, column_store=settings.column_store)
        await database.close(5.0)
    for migration in database.applied:
        say(f"applied {migration.version:04} {migration.name}")
    if not database.applied:
        say("nothing to do: the schema is up to date")
    say(f"{database.facts}; metrics is {_kind(database.facts.table)}")
    return 0


async def check(settings: Settings) -> int:
    """Says what `serve` would use, and what would stop it; changes nothing. Returns the first problem's exit
    code, 0 without any."""
    problems: list[StartupError] = []
    for name in misspelt():
        say(f"warning   the variable {name} is none of ours: is it misspelt?")
    say(f"settings  valid; {_changed(settings)}")
    try:
        found = await _look_at_database(settings)
    except StartupError as error:
        problems.append(error)
    else:
        say(f"database  {found}")
    try:
        say(f"keys      {_look_at_keys(settings)}")
    except StartupError as error:
        problems.append(error)
    try:
        say(f"journal   {_look_at_journal(settings)}")
    except StartupError as error:
        problems.append(error)
    try:
        for line in _look_at_tls(settings):
            say(line)
    except StartupError as error:
        problems.append(error)
    problems.extend(_look_at_ports(settings))
    for problem in problems:
        say(f"problem   {problem}")
    return problems[0].exit_code if problems else 0


async def _look_at_database(settings: Settings) -> str:
    if settings.embedded and await asyncio.to_thread(_to_be_created, settings.data_dir):
        return f"embedded PostgreSQL, to be created in {settings.data_dir}"
    async with database_url(settings) as url:
        facts, pending = await inspect(url)
    where = f"embedded in {settings.data_dir}: " if settings.embedded else ""
    todo = ", ".join(f"{migration.version:04} {migration.name}" for migration in pending)
    return f"{where}{facts}; metrics is {_kind(facts.table)}; migrations to apply: {todo or 'none'}"


def _look_at_keys(settings: Settings) -> str:
    with keys_problems(settings):
        keys = KeysFile(settings.keys_path).read()
    check_keys(settings, keys)
    if keys is None or not keys.all:
        return f"none in {settings.keys_path}: callers need none"
    valid = sum(key.state(datetime.now(UTC)) == "valid" for key in keys.all)
    return f"{valid} valid, of {len(keys.all)} in {settings.keys_path}"


def _look_at_ports(settings: Settings) -> list[StartupError]:
    problems: list[StartupError] = []
    for protocol, port in (("gRPC", settings.grpc_port), ("HTTP", settings.http_port)):
        try:
            _try_port(settings.host, port, protocol)
        except StartupError as error:
            problems.append(error)
        else:
            where = f"{_bracketed(settings.host)}:{port or 'a free port'}"
            say(f"{protocol.lower():9} {where} can be listened on")
    return problems


def _look_at_tls(settings: Settings) -> list[str]:
    if (files := tls_files(settings)) is None:
        return ["tls       none: what is sent can be read on its way"]
    files.context(())
    found = files.validity()
    clients = "need no certificate"
    if files.client_ca is not None:
        clients = f"{'may' if files.client_optional else 'must'} show one of {files.client_ca}"
    line = f"tls       {files.certificate} holds until {found.ends:%Y-%m-%d}; clients {clients}"
    return [line, *(f"warning   {warning}" for warning in warnings(files, found))]


def _look_at_journal(settings: Settings) -> str:
    if settings.journal == "memory":
        return "in memory: a crash loses what waits for the database"
    bound = settings.journal_bytes_max.human_readable()
    try:
        directory = DiskDirectory.open(settings.data_dir, create=False)
    except FileNotFoundError:
        with _data_dir_problems(settings.data_dir):
            _try_to_write(settings.data_dir)
        return f"on disk, to be created in {settings.data_dir}, up to {bound}"
    directory.close()
    return f"on disk in {directory.path}, up to {bound}"


def _to_be_created(data_dir: Path) -> bool:
    """Whether there is no database yet; raises DataDirProblem if there can't be one."""
    with _data_dir_problems(data_dir):
        if (data_dir / "postgres").exists():
            return False
        existing = _try_to_write(data_dir)
        owner = identity.choose(data_dir / "postgres")
        if blocked := identity.unreachable(owner, [existing]):
            msg = f"DATA_DIR {data_dir} can't be used: PostgreSQL runs as {owner.name}, who cannot enter {blocked}"
            raise DataDirProblem(msg)
    return True


def _try_to_write(data_dir: Path) -> Path:
    """Makes sure that the directory, or the nearest one above that exists, can be written to; returns that one."""
    data_dir = data_dir.resolve()
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    # Tried out, because modes don't tell (root in /proc, file systems that are read-only).
    os.rmdir(tempfile.mkdtemp(prefix=".ingestor-check-", dir=existing))  # noqa: PTH106
    return existing


@contextmanager
def _data_dir_problems(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        msg = f"DATA_DIR {str(data_dir)[:300]} can't be created or entered: {reason}"
        raise DataDirProblem(msg) from error
    except EmbeddedPostgresError as error:
        raise DataDirProblem(str(error)) from error


def _try_port(host: str, port: int, protocol: str) -> None:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise AddressProblem.listening(protocol, host, port, error) from error


def _bracketed(host: str) -> str:
    """As it is written before a port."""
    return f"[{host}]" if ":" in host else host


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
    """Set by the first SIGTERM, SIGINT or SIGHUP; a SIGINT after that ends the process at once. (Not the other
    two: a terminal that is closed, and `timeout`, send theirs twice.)"""
    stop = asyncio.Event()

    def interrupted() -> None:
        if stop.is_set():
            # The embedded database notices by itself; there is nothing that we could still do in order.
            os._exit(_INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which is what nohup is for
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop
