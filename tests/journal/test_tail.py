"""The end of the log by itself: what a write that failed leaves to the next one, and to the next start."""

from __future__ import annotations

import errno
from uuid import UUID

import pytest

from ingestor.journal.tail import Tail
from tests.journal.forgetful_disk import Disk, Fault, Process
from tests.journal.segment_files import JOURNAL, name, segment

DATABASE = UUID(int=7)
HEADER_BYTES = len(segment(1, 1))


def begun(disk: Disk) -> tuple[Tail, Process]:
    """A tail with its first file, and the directory that this is in."""
    directory = disk.boot()
    tail = Tail(directory, JOURNAL, None, 0, lambda: 0.0)
    tail.roll(1, 0, 0)
    return tail, directory


def content(disk: Disk, sequence: int = 1) -> bytes:
    """What a file holds behind its header."""
    return bytes(disk.names[name(sequence)].cached[HEADER_BYTES:])


def write_badly(tail: Tail, disk: Disk, operation: str = "write", data: bytes = b"a" * 64) -> None:
    """A write that fails there."""
    disk.fail([Fault(operation, 0, errno.EIO)])
    with pytest.raises(OSError, match="Input/output error"):
        tail.write(data)
    disk.fail([])


def test_before_its_first_file_there_is_nothing_to_write_to() -> None:
    """Nor to cut or to close."""
    tail = Tail(Disk().boot(), JOURNAL, None, 0, lambda: 0.0)
    assert (tail.usable, tail.segment, tail.file) == (False, None, None)
    with pytest.raises(RuntimeError):
        tail.write(b"a")
    tail.write_unsynced(b"a")
    tail.cut(force=True)
    tail.close()


def test_a_file_that_was_found_is_written_on() -> None:
    """It was cut by who found it, and is not cut again."""
    disk = Disk()
    before, directory = begun(disk)
    assert before.segment is not None
    tail = Tail(directory, JOURNAL, None, 1, lambda: 0.0)
    tail.adopt(before.segment, directory.open_file(name(1)), trusted=True)
    disk.calls.clear()
    tail.write(b"a" * 8)
    assert (disk.calls, content(disk)) == (["write", "sync"], b"a" * 8)


def test_nothing_of_a_write_that_failed_is_left_behind_the_next() -> None:
    """Whole frames of it would be entries at the next start, although somebody was told that they were not
    taken."""
    longest = 0
    for seed in range(20):
        disk = Disk(seed)
        tail, _ = begun(disk)
        write_badly(tail, disk)
        longest = max(longest, len(content(disk)))
        assert (tail.usable, tail.segment and tail.segment.size_bytes) == (True, HEADER_BYTES + 64)
        tail.write(b"b" * 8)
        assert content(disk) == b"b" * 8
        tail.write(b"c" * 8)
        assert content(disk) == b"b" * 8 + b"c" * 8
        assert tail.segment is not None
        assert tail.segment.end == tail.segment.size_bytes == HEADER_BYTES + 16
    assert longest > 8, "a failed write that leaves much is among them"


def test_a_cut_is_synced_and_done_once() -> None:
    """Without a reason it touches no file; after a write that went well there is none any more."""
    disk = Disk()
    tail, _ = begun(disk)
    disk.calls.clear()
    tail.write(b"a" * 8)
    tail.cut()
    assert disk.calls == ["write", "sync"]
    write_badly(tail, disk)
    disk.calls.clear()
    tail.cut()
    tail.cut()
    assert disk.calls == ["truncate", "sync"]
    assert tail.segment is not None
    assert tail.segment.size_bytes == tail.segment.end == HEADER_BYTES + 8
    disk.calls.clear()
    tail.write(b"b" * 8)
    assert disk.calls == ["write", "sync"]
    tail.cut(force=True)
    assert disk.calls == ["write", "sync", "truncate", "sync"]
    assert tail.usable


@pytest.mark.parametrize("operation", ["truncate", "sync"])
def test_a_file_that_could_not_be_cut_is_not_written_to_again(operation: str) -> None:
    """What its end holds nobody knows."""
    disk = Disk()
    tail, _ = begun(disk)
    write_badly(tail, disk)
    disk.fail([Fault(operation, 0, errno.EIO)])
    with pytest.raises(OSError, match="Input/output error"):
        tail.cut()
    assert not tail.usable
    with pytest.raises(RuntimeError):
        tail.write(b"b")


def test_a_file_whose_sync_failed_is_not_written_to_again() -> None:
    """A cut makes it no better; a new file does."""
    disk = Disk()
    tail, _ = begun(disk)
    write_badly(tail, disk, "sync")
    tail.cut()
    assert not tail.usable
    with pytest.raises(RuntimeError):
        tail.write(b"b")
    tail.roll(1, 0, 0)
    tail.write(b"b")
    assert content(disk, 2) == b"b"
    assert tail.usable


def test_who_distrusts_or_closes_it_has_to_roll_first() -> None:
    """There is no file to write to, or none that should be."""
    disk = Disk()
    tail, _ = begun(disk)
    tail.distrust()
    with pytest.raises(RuntimeError):
        tail.write(b"a")
    tail.roll(1, 0, 0)
    tail.close()
    with pytest.raises(RuntimeError):
        tail.write(b"a")
    assert content(disk, 2) == b""


def test_what_may_be_lost_is_written_where_nothing_is_amiss_alone() -> None:
    """It is the last word before an orderly end. Behind what a failed write left it would be taken for more than it
    is."""
    disk = Disk()
    tail, _ = begun(disk)
    tail.write(b"a" * 8)
    disk.calls.clear()
    tail.write_unsynced(b"b" * 8)
    assert disk.calls == ["write"]
    assert content(disk) == b"a" * 8 + b"b" * 8
    write_badly(tail, disk)
    left = content(disk)
    tail.write_unsynced(b"c" * 8)
    assert content(disk) == left
    tail.cut()
    tail.distrust()
    tail.write_unsynced(b"c" * 8)
    tail.roll(1, 0, 0)
    tail.close()
    tail.write_unsynced(b"c" * 8)
    assert (content(disk), content(disk, 2)) == (b"a" * 8, b"")


@pytest.mark.parametrize("operation", ["write", "sync", "dirsync"])
def test_a_file_that_could_not_be_begun_is_removed(operation: str) -> None:
    """The one before it stays in use for reading, and its number is not used again."""
    disk = Disk()
    tail, _ = begun(disk)
    before = tail.segment
    disk.fail([Fault(operation, 0, errno.EIO)])
    with pytest.raises(OSError, match="Input/output error"):
        tail.roll(1, 0, 0)
    assert set(disk.names) == {name(1)}
    assert (tail.segment, tail.usable) == (before, False)
    assert tail.file is not None
    disk.fail([])
    assert tail.roll(1, 0, 0).name == name(3)
    assert tail.usable


def test_files_that_can_not_be_begun_do_not_pile_up() -> None:
    """While the disk lets none be removed either, no more are tried; then all go at once."""
    disk = Disk()
    tail, _ = begun(disk)
    disk.fail([Fault("dirsync", 0, errno.EIO, lasting=True), Fault("unlink", 0, errno.EROFS, lasting=True)])
    for _ in range(30):
        with pytest.raises(OSError, match=r"Input/output error|Read-only file system"):
            tail.roll(1, 0, 0)
    assert len(disk.names) == 1 + 8
    disk.fail([])
    tail.roll(1, 0, 0)
    assert set(disk.names) == {name(1), name(10)}


def test_a_leftover_that_somebody_else_removed_is_forgotten(warnings: list[str]) -> None:
    """Otherwise the journal would never begin a file again. That it was left is told."""
    disk = Disk()
    tail, _ = begun(disk)
    disk.fail([Fault("dirsync", 0, errno.EIO), Fault("unlink", 0, errno.EROFS)])
    with pytest.raises(OSError, match="Input/output error"):
        tail.roll(1, 0, 0)
    assert [each.split(",")[0] for each in warnings] == [f"the journal can't remove {name(2)}"]
    del disk.names[name(2)]
    disk.fail([])
    tail.roll(1, 0, 0)
    assert set(disk.names) == {name(1), name(3)}


def test_a_header_says_where_the_log_stands_and_when() -> None:
    """A new database is named from the next file on."""
    disk = Disk()
    tail = Tail(disk.boot(), JOURNAL, None, 4, lambda: 2.5)
    tail.roll(1, 0, 0)
    tail.name_database(DATABASE)
    assert tail.database == DATABASE
    header = tail.roll(7, 6, 5).header
    assert (header.journal, header.database, header.sequence) == (JOURNAL, DATABASE, 6)
    assert (header.first, header.previous, header.committed, header.created_us) == (7, 6, 5, 2_500_000)
