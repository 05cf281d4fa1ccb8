"""What is read of the log's files, and where: entries once and in order, and no file that need not be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestor.journal import reader as reader_module
from ingestor.journal.files import File
from ingestor.journal.log import SegmentLog
from ingestor.journal.parts import Gap
from ingestor.journal.segments import Bad, Frame, walk
from tests.journal.forgetful_disk import Disk, OpenFile
from tests.journal.segment_files import (
    LIMITS,
    MANY,
    ONE_EACH,
    broken,
    contents,
    cursor,
    entries_in,
    entry,
    name,
    opened,
    put,
    record,
    segment,
    values,
)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offset of each walk over a file."""
    offsets: list[int] = []

    def noted(file: File, seed: int, start: int, end: int) -> Iterator[Frame | Bad]:
        offsets.append(start)
        return walk(file, seed, start, end)

    monkeypatch.setattr(reader_module, "walk", noted)
    return offsets


def test_reading_goes_on_where_it_ended(tmp_path: Path, starts: list[int]) -> None:
    """In the file that it ended in, and with it: what comes before is not looked at again."""
    put(
        tmp_path,
        segment(1, 1, entry(1)),
        data := segment(2, 2, *(entry(position) for position in (2, 3, 4))),
        segment(3, 5, entry(5)),
    )
    places = entries_in(data)
    with opened(tmp_path) as log:
        starts.clear()
        for position, offset in ((2, 88), (3, places[2][1]), (4, places[3][1]), (5, 88)):
            assert [each.position for each in log.read(position - 1, 1, 1)] == [position]
            assert starts == [offset]
            starts.clear()
        assert list(values(log, 2)) == [3, 4, 5]
        assert starts == [88, 88]
        log.read(1, 1, 1)
        starts.clear()
        assert list(values(log, 2)) == [3, 4, 5]
        assert starts == [places[2][1], 88]


def test_a_file_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is written to not at all: it is open."""
    directory = Disk().boot()
    log = SegmentLog.open(directory, ONE_EACH, lambda: 100.0)
    log.append([record(position) for position in (1, 2, 3)])
    log.append([record(4)])
    reads: list[str] = []
    open_file = directory.open_file

    def noted(name: str) -> OpenFile:
        reads.append(name)
        return open_file(name)

    monkeypatch.setattr(directory, "open_file", noted)
    for position in (1, 2, 3, 4):
        assert [each.position for each in log.read(position - 1, 1, 1)] == [position]
    assert reads == [name(1)]


def test_a_cursor_in_the_place_of_a_lost_entry_is_none(tmp_path: Path) -> None:
    """It has a position like an entry's."""
    put(tmp_path, broken(segment(1, 1, entry(1), entry(2), cursor(2), entry(3)), 2))
    with opened(tmp_path) as log:
        log.rewound(0)
        assert values(log) == {1: 1.0, 3: 3.0}


def test_what_is_void_is_not_read_of_a_file_that_the_start_did_not_read(tmp_path: Path) -> None:
    """Of files that are committed it reads the headers alone; a restored database needs their entries all the
    same."""
    put(
        tmp_path,
        segment(1, 1, entry(1), entry(2), entry(3, 33.0)),
        segment(2, 3, entry(3), entry(4)),
        segment(3, 5, entry(5), committed=4),
    )
    with opened(tmp_path) as log:
        log.rewound(0)
        assert values(log) == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}


def test_what_the_database_has_is_no_loss(tmp_path: Path) -> None:
    """Up to the very last of it."""
    path = put(tmp_path, data := segment(1, 1, *(entry(position) for position in (1, 2, 3))))
    with opened(tmp_path) as log:
        (path / name(1)).write_bytes(broken(data, 2))
        log.committed(2)
        assert (values(log), log.recovery.gaps) == ({1: 1.0, 3: 3.0}, [])
        log.rewound(1)
        assert (values(log), log.recovery.gaps) == ({1: 1.0, 3: 3.0}, [Gap(2, 2, name(1))])


def test_what_is_lost_before_a_missing_file_counts_once(tmp_path: Path) -> None:
    """Each gap is one of its own, whatever lies beside it."""
    files = [segment(1, 1, entry(1), entry(2)), segment(2, 3, entry(3)), segment(3, 4, entry(4))]
    path = put(tmp_path, *files)
    (path / name(2)).unlink()
    with opened(tmp_path) as log:
        (path / name(1)).write_bytes(broken(files[0], 2))
        assert list(values(log)) == [1, 4]
        assert sorted((gap.first, gap.last) for gap in log.recovery.gaps) == [(2, 2), (3, 3)]


def test_damage_in_an_earlier_file_is_none_of_the_one_that_is_written_to(tmp_path: Path) -> None:
    """Entries go on into that, while damage in itself begins another."""
    files = [segment(1, 1, entry(1), entry(2)), segment(2, 3, entry(3))]
    path = put(tmp_path, *files)
    with opened(tmp_path, LIMITS) as log:
        (path / name(1)).write_bytes(broken(files[0], 1))
        assert list(values(log)) == [2, 3]
        log.append([record(4)])
        assert len(contents(path)) == 2
        (path / name(2)).write_bytes(broken((path / name(2)).read_bytes(), 3))
        assert [each.position for each in log.read(2, MANY, MANY)] == [4]
        log.append([record(5)])
        assert len(contents(path)) == 3
