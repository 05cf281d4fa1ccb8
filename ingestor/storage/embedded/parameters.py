"""The server's settings.

It exists so that they are the code's, the same at every start. It refuses to be overruled: they go on the
command line, which beats postgresql.conf and ALTER SYSTEM; who wants others runs a server of their own.

Invariants: nothing here trades durability for speed; the server can't be reached but by its socket.
"""

import os
import re
import sys
from pathlib import Path

from ingestor.storage.embedded.sockets import PORT

_PARAMETERS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",  # no replicas: rows COPYed into a table of the same transaction skip the WAL
    "max_wal_senders": "0",
    # Bounds recovery after a kill -9: about 3 s here. With 1 or 2 GB, COPY is no faster and it takes 7 or 10.
    "max_wal_size": "512MB",
    "checkpoint_warning": "0",
    "shared_buffers": "128MB",
    "max_connections": "40",
    "max_locks_per_transaction": "256",  # a query over years locks every weekly partition and its index
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    "max_logical_replication_workers": "0",
    # Rows belong into tables, not into the log.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


def sync_method() -> str:
    """How the whole cluster is synced, by initdb and before recovery.

    syncfs takes one call where fsync takes one for each of a thousand files (1.6 s of a start on a busy
    machine), but only Linux has it, and only from 5.8 on does it report a write that failed earlier.
    """
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    modern = release is not None and (int(release[1]), int(release[2])) >= (5, 8)
    return "syncfs" if sys.platform == "linux" and modern else "fsync"


def arguments(pgdata: Path, socket_directory: Path, cluster_name: str) -> list[str]:
    given = {
        "unix_socket_directories": str(socket_directory),
        "cluster_name": cluster_name,
        "recovery_init_sync_method": sync_method(),
    }
    return [
        "-D",
        str(pgdata),
        *(word for key, value in (_PARAMETERS | given).items() for word in ("-c", f"{key}={value}")),
    ]
