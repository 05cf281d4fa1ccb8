"""The private directory of the server's unix socket: short, fresh at every start, gone after it.

It exists because a socket's path has 107 bytes (macOS: 103) and a data directory may have a longer one. It
refuses a place where another user could swap the directory, and to remove anything but the socket files.

Invariants: the directory is 0700 and belongs to the user PostgreSQL runs as, which is all the access
control there is; its name is written to the data directory before it is made, so that after a kill -9 the
next start removes it and nothing piles up.
"""

import os
import re
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from ingestor.storage.embedded.errors import EmbeddedPostgresError
from ingestor.storage.embedded.identity import Identity
from ingestor.storage.embedded.private_file import open_private

PORT = 5432  # only a part of the file's name here
_FILES = (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock")
_PATH_BYTES_MAX = 103
# Needs no quoting in PostgreSQL's list of directories, in a DSN, and in asyncpg's list of hosts.
_PLAIN = re.compile(r"/[A-Za-z0-9/._-]+")
_NAME = re.compile(r"ingestor-[0-9a-f]{16}")


class SocketDirectory:
    def __init__(self, data_dir: Path, identity: Identity) -> None:
        self._note = data_dir / "postgres.socket"
        self._data_dir = data_dir
        self._identity = identity

    def make(self) -> Path:
        """A new directory; that of an earlier start is removed."""
        self.remove()
        for base in self._bases():
            path = base / f"ingestor-{secrets.token_hex(8)}"
            if not _fits(path) or not self._is_safe(base):
                continue
            self._write_note(path)
            try:
                path.mkdir(mode=0o700)
            except OSError:
                continue
            os.chown(path, self._identity.uid, self._identity.gid, follow_symlinks=False)
            return path
        raise EmbeddedPostgresError(
            "no place for the database's socket (tried XDG_RUNTIME_DIR, /run, /tmp, the data directory): "
            "set TMPDIR to a writable directory with a short path"
        )

    def remove(self) -> None:
        try:
            path = Path(self._note.read_text(encoding="ascii", errors="replace"))
        except OSError:
            return
        if _PLAIN.fullmatch(str(path)) and _NAME.fullmatch(path.name):
            self._discard(path)
        with suppress(OSError):  # an old note does no harm
            self._note.unlink()

    def _discard(self, path: Path) -> None:
        with suppress(OSError):  # gone already, or not ours to remove
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(fd).st_uid in {os.geteuid(), self._identity.uid}:
                    for name in _FILES:
                        with suppress(FileNotFoundError):
                            os.unlink(name, dir_fd=fd)
                    path.rmdir()
            finally:
                os.close(fd)

    def _write_note(self, path: Path) -> None:
        fd = open_private(self._note, os.O_WRONLY)
        try:
            os.ftruncate(fd, 0)
            os.write(fd, os.fsencode(path))
        finally:
            os.close(fd)

    def _bases(self) -> list[Path]:
        uid = self._identity.uid
        own = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"] if self._identity.is_us else []
        shared = ["/run"] if os.geteuid() == 0 else []
        names = [*own, *shared, tempfile.gettempdir(), "/tmp", str(self._data_dir)]  # noqa: S108 - made 0700, and random
        return [Path(name) for name in names if name.startswith("/")]

    def _is_safe(self, base: Path) -> bool:
        """Whether PostgreSQL's user can enter it, and nobody else can rename what is in it."""
        try:
            facts = base.stat()
        except OSError:
            return False
        shared = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if facts.st_uid not in {0, os.geteuid(), self._identity.uid} or (
            shared and not facts.st_mode & stat.S_ISVTX
        ):
            return False
        return self._identity.is_us or bool(facts.st_mode & stat.S_IXOTH)


def _fits(path: Path) -> bool:
    name = str(path / _FILES[0])
    return len(os.fsencode(name)) <= _PATH_BYTES_MAX and bool(_PLAIN.fullmatch(name))
