"""Whom PostgreSQL runs as, and what that user can reach.

It exists because PostgreSQL never runs as root, while the ingestor may. It refuses to create a user and to
open up a directory: it picks an existing user, and names the directory that this user can't enter.

Invariants: an existing cluster's owner is the only choice for it; what is reachable is tried out as that
user, not computed from modes, which know nothing of access lists and mounts.
"""

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ingestor.storage.embedded.errors import EmbeddedPostgresError

CHILD = str(Path(__file__).with_name("child.py"))
_CANDIDATES = ("ingestor", "postgres", "nobody")
# What root needs to be another user's supervisor; containers are often stripped of some (capability.h).
_CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7}
_REACH_S_MAX = 30
_AS_USER = "run the ingestor as an ordinary user, or set INGESTOR_DATABASE_URL"


@dataclass(frozen=True)
class Identity:
    name: str
    uid: int
    gid: int

    @property
    def is_us(self) -> bool:
        return self.uid == os.geteuid()


def choose(pgdata: Path) -> Identity:
    """The user to run PostgreSQL as on `pgdata`, which need not exist yet."""
    owner = pgdata.stat().st_uid if pgdata.exists() else None
    if os.geteuid() != 0:
        if owner not in {None, os.geteuid()}:
            raise EmbeddedPostgresError(
                f"{pgdata} belongs to {_by_uid(owner or 0).name}: run as that user, "
                "or set INGESTOR_DATA_DIR to a directory of yours"
            )
        return _by_uid(os.geteuid())
    if owner == 0:
        raise EmbeddedPostgresError(f"{pgdata} belongs to root, whom PostgreSQL refuses to run as: chown it")
    _check_capabilities()
    return _first_candidate() if owner is None else _by_uid(owner)


def unreachable(identity: Identity, paths: list[Path]) -> Path | None:
    """The first of `paths`, or of the directories above them, that `identity` can't enter or read."""
    if identity.is_us:
        return None
    steps = [str(step) for path in paths for step in (*reversed(path.parents), path)]
    command = [interpreter(), "-I", "-S", CHILD, "reach", str(identity.uid), str(identity.gid), *steps]
    tried = subprocess.run(command, capture_output=True, check=False, cwd="/", timeout=_REACH_S_MAX)
    if tried.returncode != 0:
        reason = " ".join(tried.stderr.decode("utf-8", "replace").split())[-300:]
        raise EmbeddedPostgresError(f"cannot become {identity.name} to run PostgreSQL ({reason}): {_AS_USER}")
    return Path(os.fsdecode(tried.stdout)) if tried.stdout else None


def interpreter() -> str:
    if not sys.executable:
        raise EmbeddedPostgresError("this Python does not know its own path: set INGESTOR_DATABASE_URL")
    return sys.executable


def _by_uid(uid: int) -> Identity:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Identity(str(uid), uid, os.getegid() if uid == os.geteuid() else uid)
    return Identity(entry.pw_name, uid, entry.pw_gid)


def _first_candidate() -> Identity:
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Identity(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        f"PostgreSQL refuses to run as root, and no user {', '.join(_CANDIDATES)} exists: {_AS_USER}"
    )


def _check_capabilities() -> None:
    if sys.platform != "linux":
        return  # the attempt will tell
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = int(status.partition("CapEff:")[2].split(maxsplit=1)[0], 16)
    missing = [f"CAP_{name}" for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise EmbeddedPostgresError(
            f"PostgreSQL needs a user other than root, for which {', '.join(missing)} is missing: "
            f"grant it, or {_AS_USER}"
        )
