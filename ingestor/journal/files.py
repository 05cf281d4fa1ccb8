"""What the disk journal needs of a file system, as ports.

Nothing here decides anything: what is written when, synced when and removed when is the log's affair. That is why a
file system that forgets what was not synced can take its place in a test.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol


class File(Protocol):
    """One open file. Every method but `close` may raise OSError."""

    def fileno(self) -> int:
        """By which number the system knows it."""

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes from there; fewer only where the file ends."""

    def write(self, offset: int, data: bytes) -> None:
        """Puts them there. When it raises, any part of them may have been written."""

    def sync(self) -> None:
        """What was written, and the file's size, outlive a power loss once this has returned. When it raises, what
        was not synced before is lost, or isn't, and syncing it again proves nothing."""

    def truncate(self, size: int) -> None:
        """Cuts what lies behind."""

    def close(self) -> None:
        """Lets go of it."""


class Files(Protocol):
    """The files of one directory. Every method may raise OSError."""

    def sizes(self) -> dict[str, int]:
        """Name and size of everything that isn't itself a directory."""

    def open_file(self, name: str, *, create: bool = False) -> File:
        """For reading and writing; `create` insists on making it."""

    def rename(self, old: str, new: str) -> None:
        """In one step."""

    def unlink(self, name: str) -> None:
        """Removes it; who has it open can still read it."""

    def sync(self) -> None:
        """What was created, renamed and removed outlives a power loss once this has returned."""


class Space(NamedTuple):
    """Bytes of the file system: what we may still take of it, and all."""

    available: int
    total: int


class Directory(Files, Protocol):
    """The journal's own directory."""

    path: Path

    def lock(self) -> None:
        """Makes this process its only user. Raises JournalProblem, which names the other."""

    def release(self) -> None:
        """Lets go of it."""

    def space(self) -> Space:
        """How full its file system is."""
