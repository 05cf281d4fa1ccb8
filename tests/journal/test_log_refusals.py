"""What the log does when the disk refuses something, and what it says of that."""

from __future__ import annotations

import errno
from pathlib import Path
from uuid import UUID

import pytest

from ingestor.errors import JournalProblem
from ingestor.journal.files import Space
from ingestor.journal.limits import JournalFailed, JournalFull, LogLimits
from ingestor.journal.log import SegmentLog
from tests.journal.forgetful_disk import Disk, Fault
from tests.journal.segment_files import (
    LIMITS,
    aside,
    broken,
    cursor,
    entry,
    name,
    opened,
    put,
    record,
    segment,
    values,
)

DATABASE, ANOTHER = UUID(int=7), UUID(int=8)
RESERVING = LogLimits(1024**2, free_bytes_reserve=1)


def unseen() -> Space:
    """A file system that doesn't say how full it is."""
    raise OSError(errno.EIO, "Input/output error")


def test_a_log_that_can_not_note_its_database_keeps_the_one_it_has() -> None:
    """Another try writes it."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), LIMITS, lambda: 1_000.0)
    log.bind(DATABASE)
    disk.fail([Fault("create", 0, errno.ENOSPC)])
    with pytest.raises(OSError, match="No space left"):
        log.bind(ANOTHER)
    assert log.database == DATABASE
    log.bind(ANOTHER)
    log.append([record(1)])
    assert SegmentLog.open(disk.boot(), LIMITS, lambda: 1_000.0).database == ANOTHER


def test_without_knowing_what_is_free_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something is to be left free; else the disk itself says when it is full."""
    disk = Disk()
    directory = disk.boot()
    log = SegmentLog.open(directory, RESERVING, lambda: 1_000.0)
    with monkeypatch.context() as blind:
        blind.setattr(directory, "space", unseen)
        with pytest.raises(JournalFailed, match="can't be written: input/output error"):
            log.append([record(1)])
    log.append([record(1)])
    assert values(log) == {1: 1.0}


def test_an_error_without_a_number_is_told_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are such, of no system call."""

    def refuse() -> Space:
        raise OSError("The disk is elsewhere")

    directory = Disk().boot()
    log = SegmentLog.open(directory, RESERVING, lambda: 1_000.0)
    monkeypatch.setattr(directory, "space", refuse)
    with pytest.raises(JournalFailed, match="can't be written: the disk is elsewhere"):
        log.append([record(1)])
    directory = Disk().boot()
    monkeypatch.setattr(directory, "sizes", refuse)
    with pytest.raises(JournalProblem, match="can't be used: the disk is elsewhere"):
        SegmentLog.open(directory, LIMITS)


def test_each_step_of_a_failed_append_is_told(warnings: list[str]) -> None:
    """A new file is tried; where that fails too, what was written is cut off, or can't be."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), LIMITS, lambda: 1_000.0)
    disk.fail([Fault("write", 0, errno.EIO)])
    log.append([record(1)])
    assert [each.split(":")[0] for each in warnings] == [
        "the journal can't be written to, a new file is tried"
    ]
    disk.fail([Fault("write", 0, errno.ENOSPC), Fault("truncate", 0, errno.EIO)])
    with pytest.raises(JournalFull, match="no space left"):
        log.append([record(2)])
    assert "can't cut off what it failed to write: [Errno 5]" in warnings[-1]


def test_an_end_that_can_not_be_noted_is_told(warnings: list[str]) -> None:
    """The next start asks the database for more than it would have to; the directory is free for it."""
    disk = Disk()
    directory = disk.boot()
    log = SegmentLog.open(directory, LIMITS, lambda: 1_000.0)
    log.append([record(1)])
    log.committed(1)
    disk.fail([Fault("write", 0, errno.EIO)])
    log.close()
    assert len(warnings) == 1
    assert "can't note what is committed, which costs time at the next start: [Errno 5]" in warnings[0]
    directory.lock()


def test_a_damaged_file_without_entries_is_kept_in_the_log(tmp_path: Path) -> None:
    """Until its turn comes, as others: only then is it called one that the log has done with."""
    first = segment(1, 1, entry(1), cursor(0))
    path = put(tmp_path, broken(first, 1))
    with opened(tmp_path) as log:
        assert (log.last, log.recovery.damaged) == (1, [aside(1)])
        log.append([record(2)])
        assert values(log) == {2: 2.0}
        assert {each.name for each in path.glob("*.*")} == {aside(1), name(2)}
