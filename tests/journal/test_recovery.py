"""What a start does with what it finds: what it makes sure of, what it counts from, and what it says."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from ingestor.journal import frames
from ingestor.journal.frames import Header
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.parts import Gap
from ingestor.journal.recovery import Recovery, set_aside
from tests.journal.forgetful_disk import Disk, Fault
from tests.journal.segment_files import (
    FIRST,
    JOURNAL,
    NOW_S,
    ONE_EACH,
    aside,
    broken,
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

FRAME_BYTES = len(entry(1))
RETAINING = LogLimits(1024**2, segment_bytes=1, retention_s=10)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """All that the log says."""
    words: list[str] = []
    sink = logger.add(lambda message: words.append(message.record["message"]), level="INFO")
    yield words
    logger.remove(sink)


@pytest.mark.parametrize("lacking", ["sync", "dirsync"])
@pytest.mark.parametrize("seed", range(10))
def test_what_a_start_read_outlives_a_power_loss(seed: int, lacking: str) -> None:
    """A process that was killed before it synced its bytes, or a file's name, leaves them to the next one. That
    gives them out, so that the database has them: their positions must not be given to others."""
    disk = Disk(seed)
    killed = disk.boot()
    file = killed.open_file(name(1), create=True)
    file.write(0, FIRST)
    if lacking == "dirsync":
        file.sync()
    else:
        killed.sync()
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    assert values(log) == {1: 1.0, 2: 2.0}
    disk.lose_power()
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    assert values(log) == {1: 1.0, 2: 2.0}


@pytest.mark.parametrize("seed", range(10))
def test_a_file_that_was_set_aside_keeps_that_name(seed: int) -> None:
    """Also when that was while it was read: the bytes may come back good, and would be removed in their turn."""
    disk = Disk(seed)
    log = SegmentLog.open(disk.boot(), ONE_EACH)
    log.append([record(1)])
    log.append([record(2)])
    disk.names[name(1)].cached[-100] ^= 1
    assert values(log) == {2: 2.0}
    disk.lose_power()
    assert set(disk.names) == {aside(1), name(2)}


def test_a_new_journal_follows_nothing() -> None:
    """Its first file says so."""
    disk = Disk()
    log = SegmentLog.open(disk.boot(), ONE_EACH, lambda: NOW_S)
    header = frames.decode_header(bytes(disk.names[name(1)].cached))
    assert header == Header(log.id, None, 1, 1, 0, 0, int(NOW_S * 1e6))


def test_a_file_without_entries_gives_out_its_first_position(tmp_path: Path) -> None:
    """The start before has made it, and nothing came."""
    put(tmp_path, segment(1, 1))
    with opened(tmp_path) as log:
        assert (log.last, log.first) == (0, 1)
        log.append([record(1)])
        assert set(contents(tmp_path / "journal")) == {name(1)}


def test_a_file_that_was_set_aside_is_not_written_to(tmp_path: Path) -> None:
    """Nor cut, although it seems well now: somebody may want to look at it."""
    data = segment(1, 1, entry(1)) + bytes(50)
    path = put(tmp_path, data)
    (path / name(1)).rename(path / aside(1))
    with opened(tmp_path) as log:
        assert (log.recovery.torn_bytes, log.recovery.damaged) == (0, [aside(1)])
        log.append([record(2)])
        assert values(log) == {1: 1.0, 2: 2.0}
    assert contents(path)[aside(1)] == data


def test_what_is_lost_at_the_end_is_not_given_out_again(tmp_path: Path) -> None:
    """Whatever else is lost before it."""
    lost = bytes(FRAME_BYTES)
    put(tmp_path, segment(1, 1, entry(1), lost, entry(3), lost, cursor(0)))
    with opened(tmp_path) as log:
        assert [(gap.first, gap.last) for gap in log.recovery.gaps] == [(2, 2), (4, 4)]
        assert log.last == 4


def test_each_file_without_anything_is_judged_by_itself(tmp_path: Path) -> None:
    """Two that were only just being made, one that is too long for that, one more."""
    path = put(tmp_path, FIRST, b"", bytes(88), bytes(200), b"", segment(6, 3, entry(3)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [aside(4)])
        assert values(log) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert set(contents(path)) == {name(1), aside(4), name(6)}


def test_a_void_file_that_leapt_hides_nothing_behind_it(tmp_path: Path) -> None:
    """What it was there for was never acknowledged, and the next file goes on where the one before it ended."""
    leapt = frames.encode_header(Header(JOURNAL, None, 2, 10**12, 2, 0, 0))
    put(tmp_path, FIRST, leapt, segment(3, 3, entry(3)))
    with opened(tmp_path) as log:
        assert (values(log), log.recovery.gaps) == ({1: 1.0, 2: 2.0, 3: 3.0}, [])


def test_what_is_pending_at_a_start_is_retained_from_its_commit_on(tmp_path: Path) -> None:
    """And not from the start on."""
    now_s = NOW_S
    put(tmp_path, segment(1, 1, entry(1)), segment(2, 2, entry(2)))
    with opened(tmp_path, RETAINING, lambda: now_s) as log:
        now_s += 100.0
        log.committed(1)
        assert log.first == 1
        now_s += 10.0
        log.committed(1)
        assert log.first == 2


def test_what_was_committed_before_a_start_is_retained_from_the_first_word_of_it(tmp_path: Path) -> None:
    """Not from what came later, nor from much earlier: each file by the first header that knows."""
    now_s = NOW_S
    with opened(tmp_path, RETAINING, lambda: now_s) as log:
        log.append([record(1)])
        log.append([record(2)])
        log.committed(2)
        now_s += 5.0
        log.append([record(3)])
        now_s += 8.0
        log.append([record(4)])
    now_s = NOW_S + 14.9
    with opened(tmp_path, RETAINING, lambda: now_s) as log:
        log.committed(2)
        assert log.first == 1
        now_s = NOW_S + 15.0
        log.committed(2)
        assert log.first == 3


def test_where_entries_begin_is_known_after_a_start(tmp_path: Path) -> None:
    """Of a long file, so that it needn't be read from its beginning, and what is pending is known to 64 KiB."""
    with opened(tmp_path) as log:
        log.append([record(position) for position in range(1, 501)])
    with opened(tmp_path) as log:
        log.committed(450)
        assert 50 * FRAME_BYTES <= log.held_bytes <= 50 * FRAME_BYTES + 66 * 1024


def test_what_is_lost_is_told_as_what_it_is(told: list[str]) -> None:
    """Once."""
    recovery = Recovery()
    for _ in range(2):
        recovery.lose(Gap(3, 4, name(1), doubtful=True))
        recovery.lose(Gap(5, 6, name(2)))
    first, second = told
    assert first.startswith(f"the journal's {name(1)} lacks entries 3 to 4, of its last append: most likely")
    assert second == f"the journal's {name(2)} is damaged or missing: its entries 5 to 6 are lost"


def test_what_is_set_aside_is_told(told: list[str]) -> None:
    """Under both its names, and when it can't be."""
    disk = Disk()
    directory = disk.boot()
    directory.open_file(name(1), create=True)
    recovery = Recovery()
    disk.fail([Fault("rename", 0, errno.EROFS)])
    assert set_aside(directory, name(1), recovery) == name(1)
    assert f"the journal's damaged {name(1)} can't be set aside: [Errno 30]" in told.pop()
    assert set_aside(directory, name(1), recovery) == aside(1)
    assert told.pop() == f"the journal's damaged {name(1)} was set aside as {aside(1)}: it is kept"
    assert set_aside(directory, aside(1), recovery) == aside(1)
    assert (told, recovery.damaged) == ([], [aside(1)])


def test_a_torn_end_is_told_and_what_was_only_being_made(tmp_path: Path, told: list[str]) -> None:
    """An operator sees what a start has taken away."""
    put(tmp_path, broken(FIRST, 2), b"")
    with opened(tmp_path) as log:
        assert log.recovery.torn_bytes == FRAME_BYTES
    assert told == [
        f"the journal's {name(2)} was only just being made when the process ended: removed",
        f"the journal's {name(1)} ends in {FRAME_BYTES} torn bytes: cut off",
    ]


def test_a_torn_end_that_can_not_be_cut_off_is_written_around(told: list[str]) -> None:
    """In a new file."""
    disk = Disk()
    directory = disk.boot()
    directory.open_file(name(1), create=True).write(0, broken(FIRST, 2))
    disk.fail([Fault("truncate", 0, errno.EIO)])
    log = SegmentLog.open(disk.boot(), LogLimits(1024**2))
    assert "they can't be cut off, so a new file will be begun: [Errno 5]" in told[-1]
    log.append([record(2)])
    assert (values(log), set(disk.names)) == ({1: 1.0, 2: 2.0}, {name(1), name(2)})


def test_a_damaged_file_goes_with_the_last_that_it_lost(tmp_path: Path) -> None:
    """The database is past that now: not one position before, and no later."""
    path = put(tmp_path, segment(1, 1, entry(1)), segment(2, 4, entry(4)))
    (path / name(1)).rename(path / aside(1))
    with opened(tmp_path) as log:
        for committed, called in ((2, aside(1)), (3, let_go(1))):
            log.committed(committed)
            assert set(contents(path)) == {called, name(2)}
