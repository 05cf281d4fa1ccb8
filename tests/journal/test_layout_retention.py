"""Which of the log's files go, and when; and with which file and position it goes on.

Whatever isn't committed stays, and what is committed stays for a while, for a database that is restored.
"""

from __future__ import annotations

import errno
from pathlib import Path
from uuid import UUID

import pytest

from ingestor.journal.limits import JournalFull, LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.parts import Gap
from tests.journal.forgetful_disk import Disk, Fault
from tests.journal.segment_files import (
    FIRST,
    LIMITS,
    ONE_EACH,
    aside,
    contents,
    cursor,
    entry,
    let_go,
    name,
    opened,
    put,
    record,
    segment,
    values,
)
from tests.journal.segment_files import broken as broken_entry

DATABASE, ANOTHER = UUID(int=7), UUID(int=8)


def broken() -> dict[str, int]:
    """A directory that can't be listed."""
    raise OSError(errno.EIO, "Input/output error")


def test_only_the_oldest_files_go_and_only_when_their_time_is_over(tmp_path: Path) -> None:
    """A database that is restored to an earlier state gets them again until then. What isn't committed stays, and
    so does what is written to."""
    now_s = 100.0
    limits = LogLimits(bytes_max=1024**2, segment_bytes=1, retention_s=10)
    path = tmp_path / "journal"
    with opened(tmp_path, limits, lambda: now_s) as log:
        for position in (1, 2, 3, 4):
            log.append([record(position)])
        log.committed(1)
        now_s = 105.0
        log.committed(2)
        now_s = 109.9
        log.committed(2)
        assert set(contents(path)) == {name(n) for n in (1, 2, 3, 4)}
        now_s = 110.0
        log.committed(2)
        assert (log.first, set(contents(path))) == (2, {name(n) for n in (2, 3, 4)})
        now_s = 1_000.0
        log.committed(2)
        assert (log.first, set(contents(path))) == (3, {name(3), name(4)})
        log.committed(4)
        now_s = 2_000.0
        log.committed(4)
        assert (log.first, set(contents(path))) == (4, {name(4)})


def test_what_the_database_lost_begins_its_time_anew(tmp_path: Path) -> None:
    """It has to be there until it is committed again, and for a while then."""
    now_s = 100.0
    limits = LogLimits(bytes_max=1024**2, segment_bytes=1, retention_s=10)
    with opened(tmp_path, limits, lambda: now_s) as log:
        for position in (1, 2):
            log.append([record(position)])
        log.committed(1)
        assert log.rewound(0) is None
        now_s = 115.0
        log.committed(0)
        assert values(log) == {1: 1.0, 2: 2.0}
        log.committed(1)
        assert log.first == 1
        now_s = 125.0
        log.committed(1)
        assert log.first == 2


def test_what_the_database_kept_does_not_begin_its_time_anew(tmp_path: Path) -> None:
    """It was restored to a moment at which it had the first file, all of that."""
    now_s = 100.0
    limits = LogLimits(bytes_max=1024**2, segment_bytes=1, retention_s=10)
    with opened(tmp_path, limits, lambda: now_s) as log:
        for position in (1, 2, 3):
            log.append([record(position)])
        log.committed(2)
        now_s = 109.0
        assert log.rewound(1) is None
        log.committed(2)
        now_s = 110.0
        log.committed(2)
        assert log.first == 2
        now_s = 119.0
        log.committed(2)
        assert log.first == 3


@pytest.mark.parametrize("restarted", [False, True])
def test_a_damaged_file_stays_until_the_database_is_past_what_it_lost(
    tmp_path: Path, *, restarted: bool
) -> None:
    """Nothing good of it is left to be committed. Were it let go of, all before the next file would count as
    committed, and nobody would be told of what is lost."""
    damaged = broken_entry(segment(2, 3, entry(3)), 3)
    path = put(tmp_path, FIRST, damaged, segment(3, 4, entry(4), cursor(2)))
    with opened(tmp_path) as log:
        log.committed(2)
        assert set(contents(path)) == {aside(2), name(3)}
        if not restarted:
            assert (log.rewound(2), log.recovery.gaps) == ((3, 3), [Gap(3, 3, name(2))])
            log.committed(4)
            assert set(contents(path)) == {let_go(2), name(3)}
    if restarted:
        with opened(tmp_path) as log:
            assert (log.committed_hint, log.recovery.gaps) == (2, [Gap(3, 3, aside(2))])


def test_what_may_go_counts_as_room() -> None:
    """Files of which all is committed; neither the one that is written to, nor a damaged one, which takes what it
    takes until it is forgotten."""
    disk = Disk(capacity_bytes=20_000)
    log = SegmentLog.open(disk.boot(), LogLimits(10_000, segment_bytes=1, retention_s=1e9), lambda: 100.0)
    sizes = []
    for position in (1, 2, 3, 4):
        log.append([record(position)])
        sizes.append(len(disk.names[name(position)].cached))
    assert log.room_bytes() == 10_000 - sum(sizes)
    log.committed(1)
    assert log.room_bytes() == 10_000 - sum(sizes[1:])
    log.committed(4)
    assert log.room_bytes() == 10_000 - sizes[3]
    disk.names[name(2)].cached[-100] ^= 1
    assert list(values(log)) == [1, 3, 4]
    assert log.room_bytes() == 10_000 - sizes[3]
    log.rewound(1)
    assert list(values(log)) == [1, 3, 4]
    log.committed(4)
    assert log.room_bytes() == 10_000 - sizes[3] - sizes[1]
    disk.capacity_bytes = disk.used_bytes + 50
    assert log.room_bytes() == 50 + sizes[0] + sizes[2]


def test_a_full_disk_with_nothing_that_may_go_is_not_tried_again() -> None:
    """It would be full once more."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), LIMITS, lambda: 100.0)
    log.append([record(1)])
    disk.capacity_bytes = disk.used_bytes
    disk.calls.clear()
    with pytest.raises(JournalFull):
        log.append([record(2)])
    assert disk.calls == ["write", "truncate", "sync"]
    disk.capacity_bytes *= 4
    log.append([record(2)])
    assert values(log) == {1: 1.0, 2: 2.0}


def test_a_restart_does_not_begin_its_time_anew(tmp_path: Path) -> None:
    """The first header that knows of the commit says when it was."""
    now_s = 100.0
    limits = LogLimits(bytes_max=1024**2, segment_bytes=1, retention_s=10)
    with opened(tmp_path, limits, lambda: now_s) as log:
        log.append([record(1)])
        log.append([record(2)])
        log.committed(1)
        now_s = 110.0
        log.append([record(3)])
    now_s = 119.0
    with opened(tmp_path, limits, lambda: now_s) as log:
        log.committed(1)
        assert log.first == 1
        now_s = 120.0
        log.committed(1)
        assert log.first == 2


def test_each_removal_is_on_the_disk_before_the_next() -> None:
    """So that after a crash no file is missing between two that are there."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH, lambda: 100.0)
    for position in range(1, 5):
        log.append([record(position)])
    disk.calls.clear()
    log.committed(3)
    assert disk.calls == ["unlink", "dirsync"] * 3
    assert set(disk.names) == {name(4)}


def test_nothing_is_removed_while_the_last_removal_may_be_undone() -> None:
    """A power loss could bring the first file back without the second, which would look like a loss."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH, lambda: 100.0)
    for position in range(1, 5):
        log.append([record(position)])
    disk.fail([Fault("dirsync", 0, errno.EIO, lasting=True)])
    log.committed(3)
    log.committed(3)
    assert (set(disk.names), log.first) == ({name(2), name(3), name(4)}, 2)
    disk.fail([])
    disk.calls.clear()
    log.committed(3)
    assert disk.calls == ["dirsync", *["unlink", "dirsync"] * 2]
    assert (set(disk.names), log.first) == ({name(4)}, 4)


@pytest.mark.parametrize("listed", [True, False], ids=["and is there", "and may be there"])
def test_a_file_that_can_not_be_removed_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, *, listed: bool
) -> None:
    """It can still be read; the log goes on meanwhile."""
    disk = Disk()
    directory = disk.boot()
    log = SegmentLog.open(directory, ONE_EACH, lambda: 100.0)
    for position in (1, 2, 3):
        log.append([record(position)])
    disk.fail([Fault("unlink", 0, errno.EROFS, lasting=True)])
    if not listed:
        monkeypatch.setattr(directory, "sizes", broken)
    log.committed(2)
    log.append([record(4)])
    assert values(log) == {position: position for position in (1, 2, 3, 4)}
    disk.fail([])
    log.committed(2)
    assert set(disk.names) == {name(3), name(4)}


def test_what_can_not_be_removed_is_told_once_until_it_goes_again(warnings: list[str]) -> None:
    """Each commit tries anew, and would fill the log."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH, lambda: 100.0)
    for position in range(1, 5):
        log.append([record(position)])
    read_only = Fault("unlink", 0, errno.EROFS, lasting=True)
    for committed in (1, 2, 3):
        disk.fail([read_only])
        for _ in range(3):
            log.committed(committed)
        disk.fail([])
        log.committed(committed)
    assert [each.split(":")[0] for each in warnings] == [
        f"the journal can't surely let go of {name(number)}" for number in (1, 2, 3)
    ]


def test_a_removal_that_can_not_be_noted_is_told(warnings: list[str]) -> None:
    """A power loss may undo it."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH, lambda: 100.0)
    for position in (1, 2):
        log.append([record(position)])
    disk.fail([Fault("dirsync", 0, errno.EIO)])
    log.committed(1)
    assert len(warnings) == 1
    assert f"can't note that {name(1)} is gone, and will try again" in warnings[0]


def test_a_file_that_somebody_else_removed_is_not_missed() -> None:
    """It was to go, and it is gone."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH, lambda: 100.0)
    for position in (1, 2, 3):
        log.append([record(position)])
    del disk.names[name(1)]
    log.committed(2)
    assert (set(disk.names), log.first) == ({name(3)}, 3)


def test_a_file_that_is_removed_while_it_is_read_leaves_the_disk(tmp_path: Path) -> None:
    """One that is open keeps its bytes there, and nobody sees what takes the room."""
    with opened(tmp_path, ONE_EACH) as log:
        for position in (1, 2, 3):
            log.append([record(position)])
        assert [each.position for each in log.read(0, 1, 1)] == [1]
        for committed in (1, 2):
            log.committed(committed)
            kept = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
            assert not [path for path in kept if path.startswith(str(tmp_path)) and "(deleted)" in path]
        assert values(log, 2) == {3: 3.0}


def test_the_file_that_is_written_to_never_goes(tmp_path: Path) -> None:
    """Not even for an entry that is larger than all that the journal may take, when all else is committed."""
    with opened(tmp_path, LogLimits(bytes_max=5_000, segment_bytes=4_000)) as log:
        log.append([record(1)])
        log.committed(1)
        with pytest.raises(JournalFull):
            log.append([record(position) for position in range(2, 20)])
        assert set(contents(tmp_path / "journal")) == {name(1)}
        log.append([record(2)])
        assert values(log) == {1: 1.0, 2: 2.0}


def test_a_file_that_could_neither_be_begun_nor_removed_is_removed_later() -> None:
    """The disk failed for a moment. The entry went to another file, and nothing was refused."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH, lambda: 100.0)
    log.append([record(1)])
    disk.fail([Fault("write", 0, errno.EIO), Fault("unlink", 0, errno.EROFS, lasting=True)])
    log.append([record(2)])
    assert set(disk.names) == {name(1), name(2), name(3)}
    disk.fail([])
    log.append([record(3)])
    assert set(disk.names) == {name(1), name(3), name(4)}
    assert values(log) == {1: 1.0, 2: 2.0, 3: 3.0}


def test_a_log_that_is_behind_its_database_goes_on_behind_that(tmp_path: Path) -> None:
    """As when DATA_DIR was restored from a copy. The hole is none: the database has what isn't here."""
    with opened(tmp_path, LogLimits(bytes_max=1024**2, retention_s=1e9)) as log:
        log.append([record(1), record(2)])
        log.skip_to(2)
        assert set(contents(tmp_path / "journal")) == {name(1)}
        log.skip_to(10)
        assert (log.last, log.committed_hint, values(log, 10)) == (10, 10, {})
        with pytest.raises(ValueError, match="position 3 doesn't follow 10"):
            log.append([record(3)])
        log.append([record(11)])
    with opened(tmp_path, LogLimits(bytes_max=1024**2, retention_s=1e9)) as log:
        assert (log.last, log.committed_hint, log.recovery.gaps) == (11, 10, [])
        assert values(log, 10) == {11: 11.0}
        assert set(contents(tmp_path / "journal")) == {name(1), name(2)}


def test_a_skip_that_nothing_was_appended_behind_is_known_at_the_next_start(tmp_path: Path) -> None:
    """Positions that the database has are never given out."""
    with opened(tmp_path) as log:
        log.append([record(1)])
        log.skip_to(10)
    with opened(tmp_path) as log:
        assert (log.last, log.committed_hint, log.recovery.gaps) == (10, 10, [])
        log.append([record(11)])
        assert values(log, 10) == {11: 11.0}


def test_which_database_it_is_filled_for_stands_in_a_new_file(tmp_path: Path) -> None:
    """Files are never changed, so a new one says it. One without entries isn't kept for that."""
    path = tmp_path / "journal"
    with opened(tmp_path) as log:
        assert log.database is None
        log.bind(DATABASE)
        assert set(contents(path)) == {name(2)}
        log.append([record(1)])
        log.bind(DATABASE)
        assert set(contents(path)) == {name(2)}
    with opened(tmp_path) as log:
        assert log.database == DATABASE
        log.bind(ANOTHER)
        assert set(contents(path)) == {name(2), name(3)}
        log.append([record(2)])
    with opened(tmp_path) as log:
        assert log.database == ANOTHER
        assert values(log) == {1: 1.0, 2: 2.0}


def test_what_is_committed_is_noted_at_the_end(tmp_path: Path) -> None:
    """An orderly end leaves word of it, so that the next start has nothing to ask for."""
    with opened(tmp_path) as log:
        log.append([record(1)])
        log.append([record(2)])
        log.committed(2)
    with opened(tmp_path) as log:
        assert (log.committed_hint, log.is_pending) == (2, False)
