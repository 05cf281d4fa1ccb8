"""What the log makes of whole files that are missing, or have nothing in them.

What is missing is named by its positions, no more and no fewer, and only as far as the database may not have it.
"""

from __future__ import annotations

import errno
from pathlib import Path
from shutil import copytree

import pytest

from ingestor.journal import frames
from ingestor.journal.frames import Header
from ingestor.journal.log import SegmentLog
from ingestor.journal.parts import Gap
from ingestor.journal.recovery import Recovery
from tests.journal.forgetful_disk import POWER_LOSS, Disk, Fault, PowerLoss
from tests.journal.segment_files import (
    FIRST,
    JOURNAL,
    ONE_EACH,
    aside,
    broken,
    contents,
    cursor,
    entries_in,
    entry,
    let_go,
    name,
    opened,
    put,
    record,
    segment,
    values,
)


@pytest.mark.parametrize("missing", [[2], [2, 3]], ids=["one", "two"])
def test_files_that_are_missing_in_between_are_one_exact_gap(tmp_path: Path, missing: list[int]) -> None:
    """Their neighbours say what they had. Nothing that is there is to blame, so nothing is set aside."""
    last = missing[-1] * 2
    path = put(tmp_path, FIRST, segment(2, 3, entry(3), entry(4)), segment(3, 5, entry(5), entry(6)))
    (path / name(4)).write_bytes(segment(4, 7, entry(7)))
    for sequence in missing:
        (path / name(sequence)).unlink()
    left = contents(path)
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(3, last, name(2))]
        assert log.recovery.damaged == []
        assert values(log) == {position: position for position in (1, 2, *range(last + 1, 8))}
    assert contents(path) == left


def test_a_damaged_end_takes_the_blame_for_a_missing_file_behind_it(tmp_path: Path) -> None:
    """Which of the missing entries were in which file isn't known; the one that is damaged is kept."""
    path = put(tmp_path, broken(FIRST, 2), b"", segment(3, 4, entry(4)))
    (path / name(2)).unlink()
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([Gap(2, 3, name(1))], [aside(1)])
        assert values(log) == {1: 1.0, 4: 4.0}


def test_a_missing_file_whose_entries_the_database_has_is_no_loss(tmp_path: Path) -> None:
    """Retention would have removed it anyway."""
    path = put(tmp_path, FIRST, b"", segment(3, 5, entry(5), committed=4))
    (path / name(2)).unlink()
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [])
        assert values(log, 4) == {5: 5.0}


def test_a_file_that_is_missing_at_the_beginning_is_told_when_the_database_says_what_it_has(
    tmp_path: Path,
) -> None:
    """The log itself can't know: it looks as if it had been committed and removed."""
    path = put(tmp_path, FIRST, segment(2, 3, entry(3)))
    (path / name(1)).unlink()
    with opened(tmp_path) as log:
        assert (log.first, log.last, log.recovery.gaps) == (3, 3, [])
        assert log.rewound(2) is None
        assert log.rewound(1) == (2, 2)
        assert log.rewound(0) == (1, 2)


def test_files_that_were_removed_behind_a_damaged_one_are_no_loss(tmp_path: Path) -> None:
    """The damaged one is kept, and a crash comes before any file says that those behind it were committed. A
    database that was restored lacks them all the same, and hears of it."""
    data = broken(segment(1, 1, entry(1), entry(2), entry(3)), 2)
    path = put(tmp_path, data, segment(2, 4, entry(4)), segment(3, 5, entry(5)), segment(4, 6, entry(6)))
    crashed = tmp_path / "crashed"
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(2, 2, name(1))]
        log.committed(5)
        copytree(path, crashed / "journal")
    assert set(contents(crashed / "journal")) == {let_go(1), name(4)}
    with opened(crashed) as log:
        assert (log.first, log.committed_hint, values(log, 5)) == (6, 5, {6: 6.0})
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [let_go(1)])
        assert log.rewound(log.committed_hint) is None
        assert log.rewound(3) == (4, 5)
        assert log.recovery.gaps == [Gap(4, 5, "removed files")]


def test_damaged_files_among_those_that_were_removed_are_none_of_the_log_either(tmp_path: Path) -> None:
    """Whatever is left of them, be it nothing, and also when one of them could not be renamed: all up to the last
    that was let go had been committed."""
    second = segment(2, 3, entry(3), entry(4))
    fifth = broken(segment(5, 7, entry(7), entry(8)), 8)
    path = put(tmp_path, bytes(200), second, bytes(300), b"", fifth, segment(6, 9, entry(9)))
    for sequence, new in ((1, aside(1)), (2, aside(2)), (3, aside(3)), (5, let_go(5))):
        (path / name(sequence)).rename(path / new)
    (path / name(4)).unlink()
    with opened(tmp_path) as log:
        assert (log.first, log.committed_hint, log.recovery.gaps) == (9, 8, [])
        assert values(log, 8) == {9: 9.0}
        assert log.recovery.damaged == [aside(1), aside(2), aside(3), let_go(5)]
        assert log.rewound(6) == (7, 8)


@pytest.mark.parametrize("called", [aside(1), let_go(1)])
def test_the_newest_file_is_read_whatever_it_is_called(tmp_path: Path, called: str) -> None:
    """It says where the journal ended."""
    path = put(tmp_path, segment(1, 1, entry(1), entry(2), cursor(2)))
    (path / name(1)).rename(path / called)
    with opened(tmp_path) as log:
        assert (log.last, log.committed_hint, log.recovery.damaged) == (2, 2, [called])
        log.append([record(3)])
        assert values(log, 2) == {3: 3.0}


def test_a_file_that_was_let_go_is_let_go_again_under_the_same_name(tmp_path: Path) -> None:
    """As when all behind it was lost: it is the newest then, part of the log once more, until its turn comes."""
    path = put(tmp_path, segment(1, 1, entry(1), entry(2), cursor(2)))
    (path / name(1)).rename(path / let_go(1))
    with opened(tmp_path) as log:
        log.append([record(3)])
        log.committed(3)
        assert set(contents(path)) == {let_go(1), name(2)}
    with opened(tmp_path) as log:
        assert (log.first, log.last, log.committed_hint, log.recovery.damaged) == (3, 3, 3, [let_go(1)])


def test_a_file_that_is_missing_behind_a_damaged_one_is_a_loss(tmp_path: Path) -> None:
    """As long as the log has not let go of the damaged one, nothing behind it was removed."""
    path = put(tmp_path, segment(1, 1, entry(1)), segment(2, 2, entry(2)), segment(3, 3, entry(3)))
    (path / name(1)).rename(path / aside(1))
    (path / name(2)).unlink()
    with opened(tmp_path) as log:
        assert (log.committed_hint, log.recovery.gaps) == (0, [Gap(2, 2, name(2))])
        assert values(log) == {1: 1.0, 3: 3.0}
    (path / aside(1)).rename(path / let_go(1))
    with opened(tmp_path) as log:
        assert (log.first, log.committed_hint, log.recovery.gaps) == (3, 2, [])


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_has_its_last_name_before_those_behind_it_go(seed: int) -> None:
    """Whatever a power loss leaves, also when the first sync of that name fails."""
    disk = Disk(seed)
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    for position in (1, 2, 3, 4):
        log.append([record(position)])
    directory = disk.boot()
    directory.rename(name(1), aside(1))
    directory.sync()
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    disk.fail([Fault("dirsync", 0, errno.EIO), Fault("unlink", 0, POWER_LOSS)])
    with pytest.raises(PowerLoss):
        log.committed(3)
    disk.fail(())
    disk.lose_power()
    assert let_go(1) in disk.names
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    assert log.recovery.gaps == []


def test_a_damaged_file_that_can_not_be_renamed_holds_up_none_behind_it(tmp_path: Path) -> None:
    """On a full disk room must come. A start after a crash tells a loss then that may be none."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    for position in (1, 2, 3):
        log.append([record(position)])
    disk.names[aside(1)] = disk.names.pop(name(1))
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    disk.fail([Fault("rename", 0, errno.ENOSPC)])
    log.committed(2)
    assert set(disk.names) == {aside(1), name(3)}
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    assert log.recovery.gaps == [Gap(2, 2, name(2))]


@pytest.mark.parametrize(
    ("oldest", "lacks"),
    [
        (bytes(len(FIRST)), (1, 2)),
        (bytes(entries_in(FIRST)[1][1]) + FIRST[entries_in(FIRST)[1][1] :], (1, 1)),
    ],
    ids=["hollow", "headless"],
)
def test_what_a_broken_oldest_file_had_is_not_taken_for_committed(
    tmp_path: Path, oldest: bytes, lacks: tuple[int, int]
) -> None:
    """Nothing before what is left was removed: it is damaged. A database that lacks it hears of it."""
    put(tmp_path, oldest, segment(2, 3, entry(3)))
    with opened(tmp_path) as log:
        assert (log.committed_hint, log.recovery.damaged) == (0, [aside(1)])
        assert log.rewound(log.committed_hint) == lacks
        assert log.recovery.gaps == [Gap(*lacks, "removed files")]


@pytest.mark.parametrize("zeros", [True, False])
def test_an_empty_file_in_between_that_nothing_is_missing_for_is_removed(tmp_path: Path, zeros: bool) -> None:
    """A file whose header was never written, and behind which another was begun. It is as long as a header at
    most; a longer one may have had something, and is kept."""
    data = bytes(88) if zeros else b""
    path = put(tmp_path, FIRST, data, segment(3, 3, entry(3)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [])
        assert values(log) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert set(contents(path)) == {name(1), name(3)}


@pytest.mark.parametrize(
    ("size", "first", "gaps"), [(89, 3, []), (88, 4, [Gap(3, 3, name(2))]), (200, 5, [Gap(3, 4, name(2))])]
)
def test_a_file_of_zeros_that_may_have_had_something_is_kept(
    tmp_path: Path, size: int, first: int, gaps: list[Gap]
) -> None:
    """Because it is too long to be only a header, or because something is missing where it stands."""
    path = put(tmp_path, FIRST, bytes(size), segment(3, first, entry(first)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == (gaps, [aside(2)])
        assert values(log) == {1: 1.0, 2: 2.0, first: float(first)}
    assert set(contents(path)) == {name(1), aside(2), name(3)}


def test_a_newest_file_of_zeros_counts_as_one_entry(tmp_path: Path) -> None:
    """How many it had nobody can say, but it had some; and that position isn't given out again."""
    path = put(tmp_path, FIRST, bytes(200))
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(3, 3, name(2))]
        assert log.recovery.damaged == [aside(2)]
        log.append([record(4)])
        assert values(log) == {1: 1.0, 2: 2.0, 4: 4.0}
    assert set(contents(path)) == {name(1), aside(2), name(3)}


def test_what_a_leap_left_out_is_not_missing(tmp_path: Path) -> None:
    """Also when nothing of the file that leapt can be read: what it had is lost, and the next one is sound."""
    far = 10**12
    leapt = frames.encode_header(Header(JOURNAL, None, 2, far, 2, 0, 0)) + entry(far)
    after = segment(3, far + 1, entry(far + 1))
    put(tmp_path, FIRST, leapt, after)
    with opened(tmp_path) as log:
        assert values(log) == {1: 1.0, 2: 2.0, far: float(far), far + 1: float(far + 1)}
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [])
    (tmp_path / "journal" / name(2)).write_bytes(broken(leapt, far))
    with opened(tmp_path) as log:
        assert values(log) == {1: 1.0, 2: 2.0, far + 1: float(far + 1)}
        assert (log.recovery.gaps, log.recovery.damaged) == ([Gap(far, far, name(2))], [aside(2)])


def test_a_gap_is_known_only_when_all_of_it_is() -> None:
    """One that reaches beyond what was told is told, too."""
    recovery = Recovery()
    assert recovery.note(Gap(5, 9, name(1)))
    for first, last in ((5, 9), (6, 8), (5, 5)):
        assert not recovery.note(Gap(first, last, name(2)))
    for first, last in ((4, 9), (5, 10), (20, 21)):
        assert recovery.note(Gap(first, last, name(2)))
