"""What is told of a journal's files by who only looks: to the byte, and whole or in part."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from uuid import UUID

import pytest

from ingestor.journal import frames
from ingestor.journal.directory import DiskDirectory, DiskFile
from ingestor.journal.frames import Header
from ingestor.journal.parts import Gap
from ingestor.journal.survey import BadBytes, Survey, export, survey
from ingestor.model import MetricBatch, Row
from tests.journal.segment_files import (
    JOURNAL,
    SEED,
    contents,
    cursor,
    entries_in,
    entry,
    let_go,
    name,
    opened,
    put,
    segment,
)

DATABASE = UUID(int=7)


def looked(data_dir: Path, *, whole: bool = True) -> Survey:
    """What is found there."""
    found = survey(DiskDirectory.open(data_dir, create=False), whole=whole)
    assert found is not None
    return found


def exported(data_dir: Path, after: int | None) -> tuple[list[int], list[tuple[int, int]]]:
    """The positions that are exported, and those that are missing."""
    missing: list[tuple[int, int]] = []
    directory = DiskDirectory.open(data_dir, create=False)
    found = export(directory, after, lambda first, last: missing.append((first, last)))
    return [each.position for each in found], missing


def rows(position: int, count: int, taken_at_us: int) -> bytes:
    """An entry of more than one row."""
    batch = MetricBatch.of_rows([Row(0, "s", "m", float(position))] * count, {})
    return frames.encode_entry(SEED, position, batch, taken_at_us, number=0)


def broken(data: bytes, *positions: int) -> bytes:
    """The file with one byte of each of these entries changed."""
    content = bytearray(data)
    for position in positions:
        content[entries_in(data)[position][1] - 1] ^= 1
    return bytes(content)


def headless(data: bytes) -> bytes:
    """The file with one byte of its header changed."""
    return data[:50] + bytes((data[50] ^ 1,)) + data[51:]


def test_a_sound_journal_is_told_in_full(tmp_path: Path) -> None:
    """Whole, or as far as it isn't committed: then of files that are, nothing is read."""
    first = segment(1, 1, rows(1, 2, 100), rows(2, 3, 200))
    second = segment(2, 3, rows(3, 4, 300), rows(4, 5, 400))
    header = Header(JOURNAL, DATABASE, 3, 5, 4, 1, 0)
    third = frames.encode_header(header) + rows(5, 6, 500) + cursor(3) + rows(6, 7, 600)
    put(tmp_path, first, second, third)
    size = len(first + second + third)
    told = Survey(JOURNAL, DATABASE, segments=3, size_bytes=size, first=1, committed=3, last=6, entries=6)
    told.pending_entries, told.pending_metrics, told.oldest_pending_us = 3, 5 + 6 + 7, 400
    assert looked(tmp_path) == told
    told.entries = 4
    assert looked(tmp_path, whole=False) == told
    assert told.sound
    assert exported(tmp_path, None) == ([4, 5, 6], [])
    assert exported(tmp_path, 4) == ([5, 6], [])
    assert exported(tmp_path, 0) == ([1, 2, 3, 4, 5, 6], [])
    assert exported(tmp_path, 6) == ([], [])


@pytest.mark.parametrize("whole", [True, False])
def test_progress_is_told_file_by_file(tmp_path: Path, *, whole: bool) -> None:
    """Up to all of it, also of files that needn't be read."""
    files = [segment(1, 1, entry(1)), segment(2, 2, entry(2), entry(3)), segment(3, 4, committed=1)]
    put(tmp_path, *files)
    heard: list[tuple[int, int]] = []
    survey(
        DiskDirectory.open(tmp_path, create=False),
        whole=whole,
        progress=lambda done, total: heard.append((done, total)),
    )
    sizes = [len(each) for each in files]
    assert heard == [(sizes[0], sum(sizes)), (sum(sizes[:2]), sum(sizes)), (sum(sizes), sum(sizes))]


def test_bad_bytes_are_told_to_the_byte(tmp_path: Path) -> None:
    """In front of good ones and behind them, and a header, which is as long as all headers are."""
    first, second = segment(1, 1, entry(1), entry(2), entry(3)), segment(2, 4, entry(4), entry(5))
    put(tmp_path, headless(broken(first, 2)), broken(second, 5))
    found = looked(tmp_path)
    assert found.bad == [
        BadBytes(name(1), 0, 88, torn=False),
        BadBytes(name(1), *entries_in(first)[2], torn=False),
        BadBytes(name(2), *entries_in(second)[5], torn=True),
    ]
    assert (found.gaps, found.damaged_files, found.sound) == ([(2, 2)], [name(1)], False)
    assert (found.entries, found.last) == (3, 4)


def test_bytes_behind_entries_that_are_cut_off_are_damage(tmp_path: Path) -> None:
    """Also when the database has them: those who verify want to know of a disk that loses bytes."""
    first = segment(1, 1, entry(1), entry(2))
    put(tmp_path, broken(first, 2), segment(2, 3, entry(3), committed=2))
    found = looked(tmp_path)
    assert found.bad == [BadBytes(name(1), *entries_in(first)[2], torn=False)]
    assert (found.gaps, found.damaged_files, found.sound) == ([], [name(1)], False)
    assert looked(tmp_path, whole=False).sound


def test_a_file_that_was_cut_together_is_damaged(tmp_path: Path) -> None:
    """All its bytes are good; what is missing between them the database has."""
    put(tmp_path, segment(1, 1, entry(1), entry(4), cursor(4)))
    found = looked(tmp_path)
    assert (found.bad, found.gaps, found.damaged_files, found.sound) == ([], [], [name(1)], False)


def test_of_what_is_missing_only_what_is_pending_is_told(tmp_path: Path) -> None:
    """A range that is committed in part is told from there on; an export tells the other part when it is asked
    for."""
    whole = segment(1, 1, *(entry(position) for position in range(1, 7)), cursor(3))
    put(tmp_path, broken(whole, 2, 3, 4, 5))
    found = looked(tmp_path)
    assert (found.gaps, found.committed, found.pending_entries) == ([(4, 5)], 3, 1)
    assert exported(tmp_path, None) == ([6], [(4, 5)])
    assert exported(tmp_path, 4) == ([6], [(5, 5)])
    assert exported(tmp_path, 5) == ([6], [])
    assert exported(tmp_path, 0) == ([1, 6], [(2, 3), (4, 5)])
    assert exported(tmp_path, 2) == ([6], [(3, 3), (4, 5)])


def test_a_file_that_was_let_go_is_not_the_first_of_the_log(tmp_path: Path) -> None:
    """The log has it no more, and begins behind it."""
    damaged = broken(segment(1, 1, entry(1), entry(2)), 1)
    path = put(tmp_path, damaged, segment(2, 3, entry(3)), segment(3, 4, entry(4), cursor(2)))
    (path / name(1)).rename(path / let_go(1))
    assert looked(tmp_path).first == 3
    with opened(tmp_path) as log:
        assert log.first == 3


def test_a_file_that_is_only_just_being_made_is_none(tmp_path: Path) -> None:
    """It is empty, or as long as a header at most; a journal of it alone is none."""
    path = put(tmp_path, segment(1, 1, entry(1)), bytes(88))
    found = looked(tmp_path)
    assert (found.segments, found.size_bytes, found.sound) == (1, len(segment(1, 1, entry(1))), True)
    assert exported(tmp_path, 0) == ([1], [])
    (path / name(1)).unlink()
    directory = DiskDirectory.open(tmp_path, create=False)
    assert survey(directory, whole=True) is None
    assert exported(tmp_path, 0) == ([], [])


def test_files_of_zeros_are_told_as_the_start_takes_them(tmp_path: Path) -> None:
    """Behind all others they count as one entry; before them they may have had something if they are longer than a
    header, or if something is missing in their place."""
    sound = segment(1, 1, entry(1))
    for number, (size, first, gaps) in enumerate([(88, 2, []), (89, 2, []), (88, 4, [(2, 3)])]):
        data_dir = tmp_path / str(number)
        put(data_dir, sound, bytes(size), segment(3, first, entry(first)))
        found = looked(data_dir)
        damaged = number > 0
        assert found.damaged_files == [name(2)] * damaged
        assert found.bad == [BadBytes(name(2), 0, size, torn=False)] * damaged
        assert (found.gaps, found.sound, found.last) == (gaps, not damaged, first)
    data_dir = tmp_path / "newest"
    put(data_dir, sound, bytes(200), bytes(300))
    found = looked(data_dir)
    assert (found.gaps, found.last, found.sound) == ([(2, 2), (3, 3)], 3, False)
    assert found.bad == [BadBytes(name(2), 0, 200, torn=False), BadBytes(name(3), 0, 300, torn=False)]
    assert exported(data_dir, 0) == ([1], [(2, 2), (3, 3)])
    assert exported(data_dir, 2) == ([], [(3, 3)])


def test_a_journal_of_which_nothing_can_be_read_is_told(tmp_path: Path) -> None:
    """One cursor says whose it is."""
    put(tmp_path, headless(segment(1, 1, cursor(5))))
    found = looked(tmp_path)
    assert (found.journal, found.database) == (JOURNAL, None)
    assert (found.first, found.last, found.committed, found.entries) == (0, 1, 0, 0)
    assert (found.gaps, found.damaged_files, found.sound) == ([(1, 1)], [name(1)], False)
    assert exported(tmp_path, None) == ([], [(1, 1)])


def test_files_that_went_are_not_missing_and_those_that_were_lost_are(tmp_path: Path) -> None:
    """Behind a file that is kept others are gone, which were committed. What a file with a damaged end had is told:
    how much of it nobody knows."""
    first = segment(1, 1, entry(1), entry(2))
    third = segment(3, 5, entry(5), cursor(4))
    path = put(tmp_path, first, b"", third)
    (path / name(2)).unlink()
    assert exported(tmp_path, 0) == ([1, 2, 5], [])
    (path / name(1)).write_bytes(broken(first, 2))
    assert exported(tmp_path, 0) == ([1, 5], [(2, 4)])
    assert exported(tmp_path, None) == ([5], [])


def test_a_file_that_was_set_aside_is_damaged_though_nothing_is_missing(tmp_path: Path) -> None:
    """Its name says so, and it stays in its place."""
    path = put(tmp_path, segment(1, 1, entry(1)), segment(2, 2, broken(segment(1, 2, entry(2)), 2)[88:]))
    (path / name(1)).rename(path / f"{name(1)}.damaged")
    (path / name(3)).write_bytes(segment(3, 3, entry(3)))
    found = looked(tmp_path)
    assert found.damaged_files == [f"{name(1)}.damaged", name(2)]
    assert (found.gaps, found.sound) == ([(2, 2)], False)


def test_what_was_set_aside_is_kept_whatever_it_holds(tmp_path: Path) -> None:
    """Also when it looks like what a start that failed has left, and nothing is missing any more."""
    path = put(tmp_path, segment(1, 1, entry(1)), bytes(88), segment(3, 4, entry(4), committed=3))
    (path / name(2)).rename(path / f"{name(2)}.damaged")
    with opened(tmp_path) as log:
        assert log.recovery.damaged == [f"{name(2)}.damaged"]
    assert contents(path)[f"{name(2)}.damaged"] == bytes(88)


@pytest.mark.parametrize("size", [0, 88])
def test_what_was_set_aside_is_kept_also_behind_all_others(tmp_path: Path, size: int) -> None:
    """A file without that name would be one that was only just being made."""
    path = put(tmp_path, segment(1, 1, entry(1)), bytes(size))
    (path / name(2)).rename(path / f"{name(2)}.damaged")
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == (
            [Gap(2, 2, f"{name(2)}.damaged")],
            [f"{name(2)}.damaged"],
        )
    assert contents(path)[f"{name(2)}.damaged"] == bytes(size)


def test_what_was_removed_had_been_committed(tmp_path: Path) -> None:
    """Whatever the newest header and the last cursor say."""
    path = put(tmp_path, b"", segment(2, 3, entry(3), entry(4)), segment(3, 5, entry(5), committed=1))
    (path / name(1)).unlink()
    found = looked(tmp_path)
    assert (found.first, found.committed, found.pending_entries, found.sound) == (3, 2, 3, True)
    with opened(tmp_path) as log:
        assert log.committed_hint == 2


def test_what_is_damaged_had_not(tmp_path: Path) -> None:
    """Although no entry of the oldest file is left: the file is there for them."""
    put(tmp_path, broken(segment(1, 1, entry(1)), 1), segment(2, 2, entry(2)))
    assert (looked(tmp_path).committed, looked(tmp_path).gaps) == (0, [(1, 1)])
    with opened(tmp_path) as log:
        assert log.committed_hint == 0


def test_what_was_leapt_over_had_not(tmp_path: Path) -> None:
    """The oldest file says which position it follows."""
    leapt = frames.encode_header(Header(JOURNAL, None, 2, 100, 2, 0, 0)) + entry(100)
    path = put(tmp_path, b"", leapt)
    (path / name(1)).unlink()
    assert looked(tmp_path).committed == 2
    with opened(tmp_path) as log:
        assert log.committed_hint == 2


@pytest.mark.parametrize("whole", [True, False])
def test_the_newest_file_may_be_removed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    """Between the first look and the second, a server that goes on can have begun another and stored all this."""
    path = put(tmp_path, segment(1, 1, entry(1)), segment(2, 2, entry(2), committed=1))
    read = DiskFile.read

    def remove_behind(file: DiskFile, offset: int, size: int) -> bytes:
        data = read(file, offset, size)
        if data == segment(2, 2, entry(2), committed=1):
            (path / name(2)).unlink()
        return data

    monkeypatch.setattr(DiskFile, "read", remove_behind)
    found = looked(tmp_path, whole=whole)
    assert (found.committed, found.entries, found.gaps, found.sound) == (1, int(whole), [], True)
    assert found.last == 1, "not before what is committed"


def test_a_headless_file_that_is_removed_meanwhile_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first entry is looked for."""
    data = headless(segment(1, 1, entry(1)))
    path = put(tmp_path, data, segment(2, 2, entry(2), committed=1))
    read = DiskFile.read

    def remove_behind(file: DiskFile, offset: int, size: int) -> bytes:
        found = read(file, offset, size)
        if found == data:
            (path / name(1)).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(DiskFile, "read", remove_behind)
    found = looked(tmp_path)
    assert (found.first, found.last, found.bad, found.sound) == (2, 2, [], True)


def test_of_files_that_nobody_asks_for_only_headers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long journal of which all but a little is stored is looked at in no time."""
    long = [segment(n, n * 100, *(entry(n * 100 + i) for i in range(100))) for n in range(1, 5)]
    newest = segment(5, 500, entry(500), committed=199)
    put(tmp_path, *long, newest)
    read: list[int] = []
    real = DiskFile.read

    def counted(file: DiskFile, offset: int, size: int) -> bytes:
        data = real(file, offset, size)
        read.append(len(data))
        return data

    monkeypatch.setattr(DiskFile, "read", counted)
    headers = 4 * 4096 + 3 * len(newest)
    assert looked(tmp_path, whole=False).pending_entries == 301
    assert sum(read) <= headers + len(long[1]) + len(long[2]) + len(long[3])
    read.clear()
    assert exported(tmp_path, 399) == ([*range(400, 501)], [])
    assert sum(read) <= headers + len(long[1]) + len(long[2]) + 2 * len(long[3]) + len(newest)


def test_no_file_is_left_open(tmp_path: Path) -> None:
    """Not by a whole reading, and not by an export that is ended early."""
    put(tmp_path, headless(segment(1, 1, entry(1))), segment(2, 2, entry(2)), segment(3, 3, entry(3)))
    directory = DiskDirectory.open(tmp_path, create=False)
    free = _next_fd()
    survey(directory, whole=True)
    assert _next_fd() == free
    found = export(directory, 0)
    assert next(found).position == 1
    assert isinstance(found, Generator)
    found.close()
    assert _next_fd() == free


def _next_fd() -> int:
    """What the next file to be opened gets."""
    fd = os.dup(0)
    os.close(fd)
    return fd
