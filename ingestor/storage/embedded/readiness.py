"""Waits until the server takes connections, and makes the database.

It exists because only a connection proves that a server serves. It refuses to read the log for that, and to
give up while crash recovery goes on, within a bound.

Invariants: a server that exits is noticed at once; every pause is bounded.
"""

import logging
import time
from pathlib import Path
from urllib.parse import quote

import asyncpg

from ingestor.storage.embedded.cluster import USER
from ingestor.storage.embedded.errors import EmbeddedPostgresError, remedy_for
from ingestor.storage.embedded.process import Child, told
from ingestor.storage.embedded.server_log import ServerLog
from ingestor.storage.embedded.sockets import PORT

_logger = logging.getLogger(__name__)
_READY_S_MAX = 300.0
_CONNECT_S_MAX = 5.0
_PAUSE_S_MIN, _PAUSE_S_MAX = 0.02, 0.25
_NEWS_EVERY_S = 5.0
_NOT_YET = (
    asyncpg.CannotConnectNowError,  # 57P03: starting up, or recovering
    asyncpg.ConnectionDoesNotExistError,
    OSError,  # no socket yet, refused, reset, and asyncio's TimeoutError
)


def dsn(socket_directory: Path, database: str) -> str:
    # All that asyncpg and libpq would otherwise take from PG* variables, which are meant for other servers.
    fixed = "sslmode=disable&target_session_attrs=any"
    return f"postgresql:///{quote(database, safe='')}?host={socket_directory}&port={PORT}&user={USER}&{fixed}"


async def wait_until_ready(child: Child, socket_directory: Path, log: ServerLog) -> asyncpg.Connection:
    """A connection to the database `postgres`."""
    began = time.monotonic()
    news_s, pause_s = _NEWS_EVERY_S, _PAUSE_S_MIN
    while not child.exited.done():
        try:
            return await asyncpg.connect(dsn(socket_directory, "postgres"), timeout=_CONNECT_S_MAX)
        except PermissionError:
            raise  # waiting would not help
        except _NOT_YET as error:
            waited_s = time.monotonic() - began
            if waited_s > _READY_S_MAX:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is not ready after {waited_s:.0f} s ({error}): "
                    f"start again to let it go on{log.tail()}"
                ) from error
            if waited_s > news_s:
                _logger.info("the embedded PostgreSQL is not ready after %.0f s: %s", waited_s, error)
                news_s = waited_s + _NEWS_EVERY_S
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            text = " ".join(str(error).split())
            raise EmbeddedPostgresError(f"cannot connect to the embedded database: {text}") from error
        await child.ended_within(pause_s)
        pause_s = min(pause_s * 1.5, _PAUSE_S_MAX)
    raise EmbeddedPostgresError(f"PostgreSQL {told(child.exited.result())} while it started{log.tail()}")


async def ensure_database(connection: asyncpg.Connection, name: str) -> None:
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
            quoted = name.replace('"', '""')
            await connection.execute(f'CREATE DATABASE "{quoted}"')
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        text = " ".join(str(error).split())
        raise EmbeddedPostgresError(f"cannot make the database {name}: {text}{remedy_for(text)}") from error
