"""Where the log stands: how far a read goes, what is pending, and which position comes next."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from ingestor.journal.limits import JournalFailed, JournalFull, LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.parts import Gap
from ingestor.journal.records import Record
from ingestor.model import MetricBatch, Row
from tests.journal.forgetful_disk import Disk, Fault
from tests.journal.segment_files import (
    LIMITS,
    MANY,
    ONE_EACH,
    contents,
    cursor,
    entry,
    name,
    opened,
    put,
    record,
    segment,
    values,
)

FRAME_BYTES, CURSOR_BYTES = len(entry(1)), len(cursor(1))


def rows(position: int, count: int) -> Record:
    """An entry of so many rows."""
    return Record(position, MetricBatch.of_rows([Row(0, "s", "m", 1.0)] * count, {}), 0)


def positions(records: Sequence[Record]) -> list[int]:
    return [each.position for each in records]


def test_a_read_ends_with_the_entry_that_reaches_the_rows(tmp_path: Path) -> None:
    """Whole, and no sooner; the first one whatever it has."""
    with opened(tmp_path) as log:
        log.append([rows(position, 2) for position in range(1, 6)])
        for rows_max, count in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (MANY, 5)):
            assert positions(log.read(0, rows_max, MANY)) == list(range(1, count + 1))
        assert positions(log.read(3, 1, MANY)) == [4]
        assert positions(log.read(5, 1, MANY)) == []


def test_a_read_ends_with_the_entry_that_reaches_the_bytes(tmp_path: Path) -> None:
    """They are what it takes on the disk, and so about what it will take in memory."""
    with opened(tmp_path) as log:
        log.append([record(position) for position in range(1, 5)])
        for bytes_max, count in (
            (1, 1),
            (FRAME_BYTES, 1),
            (FRAME_BYTES + 1, 2),
            (2 * FRAME_BYTES, 2),
            (MANY, 4),
        ):
            assert positions(log.read(0, MANY, bytes_max)) == list(range(1, count + 1))


def test_what_is_not_committed_is_counted(tmp_path: Path) -> None:
    """In bytes of entries, whichever files they are in; files without entries have none."""
    with opened(tmp_path, ONE_EACH) as log:
        assert (log.first, log.is_pending, log.held_bytes) == (1, False, 0)
        log.append([record(1)])
        assert (log.is_pending, log.held_bytes) == (True, len(contents(tmp_path / "journal")[name(1)]) - 88)
        log.append([record(2)])
        log.append([record(3)])
        held = log.held_bytes
        log.committed(1)
        assert log.is_pending
        assert 2 * FRAME_BYTES <= log.held_bytes < held
        log.committed(3)
        assert (log.is_pending, log.held_bytes) == (False, 0)
        log.skip_to(10)
        assert (log.first, log.is_pending, log.held_bytes) == (3, False, 0)
        log.committed(10)
        assert (log.first, log.is_pending, log.held_bytes) == (11, False, 0)


def test_in_a_long_file_what_is_not_committed_is_known_to_64_kib(tmp_path: Path) -> None:
    """Where entries begin is remembered that often, also where cursors stand between them."""
    now_s = itertools.count(1_000.0, 10.0)
    with opened(tmp_path, clock=lambda: next(now_s)) as log:
        for first in range(1, 1_001, 100):
            log.append([record(position) for position in range(first, first + 100)])
        for after in reversed(range(1_000)):  # backwards: else it would go on where the last read ended
            assert positions(log.read(after, 1, 1)) == [after + 1]
        for committed in range(0, 1_000, 50):
            log.committed(committed)
            exact = (1_000 - committed) * FRAME_BYTES + (10 - committed // 100) * CURSOR_BYTES
            assert exact <= log.held_bytes <= exact + 66 * 1024
            assert positions(log.read(committed, 1, 1)) == [committed + 1]


def test_a_leap_goes_to_the_present_moment(tmp_path: Path) -> None:
    """In microseconds, which no position given out before can be; on the disk with the next entry."""
    with opened(tmp_path, clock=lambda: 5_000.25) as log:
        log.append([record(1)])
        before = contents(tmp_path / "journal")
        log.leap()
        assert contents(tmp_path / "journal") == before
        assert log.last == 5_000_250_000
        log.append([record(5_000_250_001, 2.0)])
        log.leap()
        assert log.last == 5_000_250_001 + 2**20, "a clock that stands still is no excuse"
        log.append([record(log.last + 1, 3.0)])
        assert list(values(log).values()) == [1.0, 2.0, 3.0]
    with opened(tmp_path) as log:
        assert list(values(log).values()) == [1.0, 2.0, 3.0]
        assert log.recovery.gaps == []


def test_a_leap_by_itself_leaves_nothing_pending(tmp_path: Path) -> None:
    """A file that begins there has no entries, so another database may take the journal over."""
    with opened(tmp_path, clock=lambda: 5_000.25) as log:
        log.append([record(1)])
        log.committed(1)
        log.leap()
        log.bind(UUID(int=7))
        assert (log.is_pending, log.held_bytes, log.recovery.gaps) == (False, 0, [])
        log.bind(UUID(int=8))
        log.append([record(log.last + 1)])
        assert log.is_pending
    with opened(tmp_path) as log:
        assert (list(values(log, 1)), log.recovery.gaps) == ([5_000_250_001], []), "nothing lay between"


def test_whether_a_failed_append_may_come_back_is_said() -> None:
    """It can't when what it left was cut off; it can while the disk refuses that, until the next append."""
    unwritable = Fault("write", 0, errno.EIO, lasting=True)
    uncuttable = Fault("truncate", 0, errno.EIO, lasting=True)
    for faults, certain in (([unwritable], True), ([unwritable, uncuttable], False)):
        disk = Disk()
        log = SegmentLog.open(disk.boot(), LIMITS, lambda: 1_000.0)
        log.append([record(1)])
        disk.fail(faults)
        with pytest.raises(JournalFailed) as failed:
            log.append([record(2)])
        assert failed.value.certain is certain
        disk.fail([])
        log.append([record(2)])
        assert values(log) == {1: 1.0, 2: 2.0}


def test_a_database_that_lacks_what_was_removed_is_a_gap(tmp_path: Path) -> None:
    """It is in the recovery's account, which metrics and readiness show."""
    put(tmp_path, segment(1, 1, entry(1), entry(2)), segment(2, 3, entry(3)))
    (tmp_path / "journal" / name(1)).unlink()
    with opened(tmp_path) as log:
        assert log.committed_hint == 2, "what is gone had been committed"
        assert log.rewound(2) is None
        assert log.recovery.gaps == []
        assert log.rewound(1) == (2, 2)
        assert log.recovery.gaps == [Gap(2, 2, "removed files")]


def test_a_file_is_as_long_as_its_limit(tmp_path: Path) -> None:
    """Another is begun before it is longer; an eighth of all is the limit where none is given."""
    assert LogLimits(8_000).roll_bytes == 1_000
    assert LogLimits(8_000, segment_bytes=3_000).roll_bytes == 3_000
    assert LogLimits(1024**4).roll_bytes == 64 * 1024**2
    with opened(tmp_path, LogLimits(1024**2, segment_bytes=88 + 4 * FRAME_BYTES + 80)) as log:
        for position in range(1, 10):
            log.append([record(position)])
    sizes = [len(data) for _, data in sorted(contents(tmp_path / "journal").items())]
    assert sizes == [88 + 4 * FRAME_BYTES + 80, 88 + 4 * FRAME_BYTES + 80, 88 + FRAME_BYTES]


def test_what_is_left_free_on_the_disk_is_not_taken() -> None:
    """A database beside it must be able to take what is here. What is committed makes room for new entries."""
    disk = Disk(capacity_bytes=20_000)
    limits = LogLimits(1024**2, segment_bytes=1, retention_s=1e9, free_bytes_reserve=15_000)
    log = SegmentLog.open(disk.boot(), limits, lambda: 1_000.0)
    while (room_bytes := log.room_bytes()) >= 88 + FRAME_BYTES + 80:
        assert room_bytes == 20_000 - disk.used_bytes - 15_000
        log.append([record(log.last + 1)])
    assert disk.used_bytes > 4_000
    with pytest.raises(JournalFull, match="there is no room"):
        log.append([record(position) for position in (log.last + 1, log.last + 2)])
    last = log.last
    log.committed(1)
    log.append([record(last + 1)])
    assert (log.first, log.last) == (2, last + 1)


def test_the_bound_is_kept_to_the_byte() -> None:
    """What is just as long as the room that is left gets in."""
    for spare in (-1, 0, 1):
        disk = Disk()
        limits = LogLimits(88 + FRAME_BYTES + 80 + spare, segment_bytes=4_000)
        log = SegmentLog.open(disk.boot(), limits, lambda: 1_000.0)
        assert log.room_bytes() == FRAME_BYTES + 80 + spare
        if spare < 0:
            with pytest.raises(JournalFull):
                log.append([record(1)])
        else:
            log.append([record(1)])
            assert log.room_bytes() == spare
