"""When the log notes on the disk what is committed, and where the next entry comes when there is none to follow."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ingestor.journal.limits import JournalFull, LogLimits
from ingestor.journal.log import SegmentLog
from tests.journal.forgetful_disk import Disk, Fault
from tests.journal.segment_files import LIMITS, contents, cursor, entry, name, opened, record, values

FRAME_BYTES, CURSOR_BYTES = len(entry(1)), len(cursor(1))


def test_a_cursor_comes_with_the_first_append_of_each_second(tmp_path: Path) -> None:
    """No oftener: entries are what the disk is for. And at once when the clock went back, or none would come for
    as long as that."""
    now_s = 1_000.0
    with opened(tmp_path, clock=lambda: now_s) as log:
        for at_s, due in (
            (1_000.0, True),
            (1_000.9, False),
            (1_001.0, True),
            (1_001.9, False),
            (900.0, True),
            (900.5, False),
        ):
            now_s, before = at_s, log.size_bytes
            log.append([record(log.last + 1)])
            assert log.size_bytes - before == FRAME_BYTES + (CURSOR_BYTES if due else 0)


def test_a_disk_is_tried_by_a_cursor_whenever_that_is_asked_for(tmp_path: Path) -> None:
    """Otherwise nothing would be written, and a disk that takes nothing would seem well."""
    path = tmp_path / "journal"
    with opened(tmp_path, clock=lambda: 1_000.0) as log:
        for count in (1, 2, 3):
            log.append([])
            assert len(contents(path)[name(1)]) == 88 + count * CURSOR_BYTES
        assert (log.last, log.is_pending) == (0, False)
        log.append([record(1)])
        assert values(log) == {1: 1.0}


def test_two_leaps_leave_nothing_out_that_was_there(tmp_path: Path) -> None:
    """A worker that starts again leaps again. The file that begins there follows the last entry there was."""
    with opened(tmp_path, clock=lambda: 5_000.0) as log:
        log.append([record(1)])
        log.leap()
        log.leap()
        last = log.last + 1
        log.append([record(last)])
    with opened(tmp_path) as log:
        assert (list(values(log)), log.recovery.gaps) == ([1, last], [])


def test_a_log_without_entries_begins_behind_its_last_position(tmp_path: Path) -> None:
    """Wherever its file begins."""
    with opened(tmp_path, clock=lambda: 5_000.0) as log:
        log.leap()
        assert (log.last, log.first) == (5_000_000_000, 5_000_000_001)


def test_an_empty_file_that_could_not_be_removed_hides_no_gap() -> None:
    """It stands before all, and follows nothing; what was skipped behind it isn't here."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), LIMITS, lambda: 1_000.0)
    disk.fail([Fault("unlink", 0, errno.EROFS)])
    log.skip_to(10)
    assert set(disk.names) == {name(1), name(2)}
    log.append([record(11)])
    assert log.rewound(5) == (6, 10)


def test_an_append_that_leaves_a_hole_is_our_own_mistake(tmp_path: Path) -> None:
    """Nothing of it is written, and it is told what would have followed."""
    with opened(tmp_path) as log:
        with pytest.raises(ValueError, match="position 5 doesn't follow 2"):
            log.append([record(1), record(2), record(5)])
        log.append([record(1)])
        assert values(log) == {1: 1.0}


def test_what_is_left_free_is_left_to_the_byte() -> None:
    """What is just as long as the rest gets in."""
    needed = FRAME_BYTES + CURSOR_BYTES
    for spare in (-1, 0):
        disk = Disk(capacity_bytes=88 + needed + 5_000 + spare)
        log = SegmentLog.open(disk.boot(), LogLimits(1024**2, free_bytes_reserve=5_000), lambda: 1_000.0)
        if spare < 0:
            with pytest.raises(JournalFull, match="there is no room"):
                log.append([record(1)])
        else:
            log.append([record(1)])
            assert values(log) == {1: 1.0}
