"""Which files the journal's directory holds, and whose they are; read from names and headers alone.

It refuses a directory with anything in it that this journal didn't write: such a file may be what somebody misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ingestor.errors import JournalProblem
from ingestor.journal import frames
from ingestor.journal.files import Directory
from ingestor.journal.frames import HEADER_BYTES, Header, HeaderProblem
from ingestor.journal.scan import journal_in
from ingestor.journal.segments import is_let_go, is_set_aside, segment_name, sequence_of

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Found:
    """One file. Without a readable header, `foreign` says that it doesn't begin as any part of ours would."""

    name: str
    sequence: int
    size_bytes: int
    header: Header | None
    foreign: bool = False

    @property
    def damaged(self) -> bool:
        """Whether it was set aside."""
        return is_set_aside(self.name)

    @property
    def let_go(self) -> bool:
        """Whether it is kept although the log has done with it."""
        return is_let_go(self.name)

    @property
    def cut_short(self) -> bool:
        """Whether it is what a power loss leaves of a file that was only just being made."""
        short = self.header is None and self.size_bytes <= HEADER_BYTES
        return short and not self.foreign and not self.damaged


def take_inventory(directory: Directory) -> list[Found]:
    """The segments, oldest first; without those that a server, which uses them, removes meanwhile. Raises
    JournalProblem, OSError."""
    names: dict[int, tuple[str, int]] = {}
    for name, size_bytes in directory.sizes().items():
        if name.startswith(".") or name == LOCK:
            continue
        sequence = sequence_of(name)
        if sequence is None:
            raise not_ours(directory, name)
        if sequence in names:
            raise problem(directory, name, f"has the number of {names[sequence][0]}", "move one of them away")
        names[sequence] = (name, size_bytes)
    looked = (_look(directory, name, sequence, size) for sequence, (name, size) in sorted(names.items()))
    return [found for found in looked if found is not None]


def identity(directory: Directory, found: Sequence[Found]) -> tuple[UUID, UUID | None]:
    """The ids of journal and database, as the newest readable header says. Raises JournalProblem, OSError."""
    headers = [item.header for item in found if item.header is not None]
    if not headers:
        return _journal_by_cursors(directory, found), None
    newest = headers[-1]
    for item in found:
        if item.header is not None and item.header.journal != newest.journal:
            what = (
                f"belongs to another journal, {item.header.journal}, than the newest file, {newest.journal}"
            )
            raise problem(directory, item.name, what, "move the files of one of them away")
    return newest.journal, newest.database


def problem(directory: Directory, name: str, what: str, remedy: str) -> JournalProblem:
    """One line about a file."""
    return JournalProblem(f"{directory.path / name} {what}: {remedy}")


def not_ours(directory: Directory, name: str) -> JournalProblem:
    """About a file that somebody else put there."""
    return problem(directory, name, "is no file of the journal's", "move it away")


def _look(directory: Directory, name: str, sequence: int, size_bytes: int) -> Found | None:
    try:
        file = directory.open_file(name)
    except FileNotFoundError:
        return None
    try:
        data = file.read(0, min(size_bytes, frames.HEADER_BYTES_MAX))
    finally:
        file.close()
    try:
        header = frames.decode_header(data)
    except HeaderProblem as trouble:
        if trouble.newer:
            what = f"has the format version {trouble.newer}, of a later release"
            remedy = "start the release that wrote it and let that store what is in it"
            raise problem(directory, name, what, remedy) from None
        return Found(name, sequence, size_bytes, None, trouble.foreign)
    if header.sequence != sequence:
        what = f"was called {segment_name(header.sequence)} when it was written"
        raise problem(directory, name, what, "give it its name back")
    return Found(name, sequence, size_bytes, header)


def _journal_by_cursors(directory: Directory, found: Sequence[Found]) -> UUID:
    for item in found:
        file = directory.open_file(item.name)
        try:
            journal = journal_in(file, item.size_bytes)
        finally:
            file.close()
        if journal is not None:
            return journal
    if any(item.foreign for item in found):
        raise not_ours(directory, next(item.name for item in found if item.foreign))
    what = "has no readable header, and nothing else here says which journal this is"
    raise problem(directory, found[-1].name, what, "restore it, or move all files here away")
