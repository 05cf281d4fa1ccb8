"""A journal looked at from outside: what is found is what the next start would find."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestor.journal.directory import DiskDirectory, DiskFile
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.records import Record
from ingestor.journal.survey import Survey, export, survey
from ingestor.model import MetricBatch, Row

LIMITS = LogLimits(1024**2, segment_bytes=1_500, retention_s=3_600.0)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def opened(path: Path, clock: Clock | None = None) -> SegmentLog:
    """The log of the journal in `path`."""
    return SegmentLog.open(DiskDirectory.open(path), LIMITS, clock or Clock())


def append(log: SegmentLog, *, committed: bool = False) -> None:
    """One more entry of one metric, whose value is its position."""
    position = log.last + 1
    log.append([Record(position, MetricBatch.of_row(Row(0, "s", "m", float(position)), {}), 0)])
    if committed:
        log.committed(position)


def looked(path: Path, *, whole: bool = False) -> Survey:
    """What is found there."""
    found = survey(DiskDirectory.open(path, create=False), whole=whole)
    assert found is not None
    return found


def pending(path: Path) -> list[int]:
    """The positions that `export --pending` prints."""
    return [each.position for each in export(DiskDirectory.open(path, create=False), None)]


@pytest.mark.parametrize("rolls", [False, True], ids=["in the same file", "in a new file"])
def test_what_a_restored_database_lacks_is_pending(tmp_path: Path, *, rolls: bool) -> None:
    """It once had all of it, and older cursors and headers still say so; the newest counts."""
    clock = Clock()
    log = opened(tmp_path, clock)
    for _ in range(20):
        append(log, committed=True)
        clock.now_s += 2.0
    assert len(list((tmp_path / "journal").glob("*.segment"))) > 2
    log.rewound(5)
    for _ in range(10 if rolls else 1):
        append(log)
    log.close()
    found = looked(tmp_path)
    assert (found.committed, found.pending_metrics) == (5, found.last - 5)
    assert pending(tmp_path) == list(range(6, found.last + 1))
    log = opened(tmp_path)
    assert (log.committed_hint, log.last) == (5, found.last)
    log.close()


def test_a_file_without_entries_says_where_the_next_one_comes(tmp_path: Path) -> None:
    """What came before it isn't here any more: it was committed, although the last cursor says less."""
    log = opened(tmp_path)
    log.skip_to(7)
    log.rewound(0)
    log.close()
    assert (looked(tmp_path).last, looked(tmp_path).committed) == (7, 7)
    log = opened(tmp_path)
    assert (log.last, log.committed_hint) == (7, 7)
    log.close()


def test_positions_that_were_leapt_over_are_no_gap(tmp_path: Path) -> None:
    """The file that begins behind them says what it follows."""
    log = opened(tmp_path)
    append(log)
    log.leap()
    append(log)
    last = log.last
    log.close()
    found = looked(tmp_path, whole=True)
    assert (found.sound, found.pending_entries, found.last) == (True, 2, last)
    assert exported(tmp_path, 0) == ([1, last], [])


def test_what_a_survived_failure_left_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the write stays behind in the old file; the same entry stands whole in the next."""
    log = opened(tmp_path)
    append(log)
    write = DiskFile.write

    def fails_once(file: DiskFile, offset: int, data: bytes) -> None:
        monkeypatch.setattr(DiskFile, "write", write)
        write(file, offset, data[:100])
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(DiskFile, "write", fails_once)
    append(log)
    append(log)
    log.close()
    found = looked(tmp_path, whole=True)
    assert (found.segments, found.entries, found.gaps) == (2, 3, [])
    assert [each.torn for each in found.bad] == [True]
    assert found.sound
    log = opened(tmp_path)
    assert (log.recovery.gaps, log.recovery.damaged) == ([], [])
    log.close()


def test_bad_bytes_in_place_of_entries_are_damage(tmp_path: Path) -> None:
    """At the end of an earlier file, with positions missing before the next one's."""
    log = opened(tmp_path)
    for _ in range(6):
        append(log)
    log.close()
    first = tmp_path / "journal" / "000000000001.segment"
    first.write_bytes(first.read_bytes()[:-10])
    found = looked(tmp_path, whole=True)
    [bad] = found.bad
    [gap] = found.gaps
    assert (bad.file, bad.torn, gap[0] == gap[1], found.sound) == (first.name, False, True, False)


@pytest.mark.parametrize("when", ["stat", "open", "fstat"])
def test_a_file_that_a_server_removes_meanwhile_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Between any two looks at it: it was committed. What is left is told."""
    log = opened(tmp_path)
    for _ in range(10):
        append(log, committed=True)
    log.close()
    oldest = tmp_path / "journal" / "000000000001.segment"
    if when == "stat":
        monkeypatch.setattr("ingestor.journal.directory.os.scandir", _removing(os.scandir, oldest))
    elif when == "open":
        sizes = DiskDirectory.sizes

        def remove_behind(directory: DiskDirectory) -> dict[str, int]:
            found = sizes(directory)
            oldest.unlink(missing_ok=True)
            return found

        monkeypatch.setattr(DiskDirectory, "sizes", remove_behind)
    else:
        fstat = os.fstat

        def remove_before(fd: int) -> os.stat_result:
            oldest.unlink(missing_ok=True)
            return fstat(fd)

        monkeypatch.setattr("ingestor.private_files.os.fstat", remove_before)
    found = looked(tmp_path, whole=True)
    assert not oldest.exists()
    assert (found.last, found.sound) == (10, True)
    assert found.first > 1


def _removing(scandir: Any, path: Path) -> Any:
    """Names are read first, and what they belong to is looked at when that file is gone."""

    @contextmanager
    def scan(fd: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(fd) as entries:
            named = list(entries)
        path.unlink(missing_ok=True)
        yield named

    return scan


def exported(path: Path, after: int | None) -> tuple[list[int], list[tuple[int, int]]]:
    """The positions that are exported, and those that are missing."""
    missing: list[tuple[int, int]] = []
    directory = DiskDirectory.open(path, create=False)
    found = export(directory, after, lambda first, last: missing.append((first, last)))
    return [each.position for each in found], missing


def test_an_export_tells_what_is_missing(tmp_path: Path) -> None:
    """Be it known to be committed or not, in a file's middle or at its end; of what was asked for alone."""
    log = opened(tmp_path)
    for position in range(1, 13):
        append(log, committed=position <= 3)
    log.close()
    files = sorted((tmp_path / "journal").glob("*.segment"))  # with two entries each
    for file in (files[0], files[2]):
        content = bytearray(file.read_bytes())
        content[200] ^= 1  # in the first entry
        file.write_bytes(content)
    files[3].write_bytes(files[3].read_bytes()[:-300])
    there = [2, 3, 4, 6, 7, 9, 10, 11, 12]
    assert exported(tmp_path, 0) == (there, [(1, 1), (5, 5), (8, 8)])
    assert exported(tmp_path, None) == exported(tmp_path, 3) == (there[2:], [(5, 5), (8, 8)])
    assert exported(tmp_path, 5) == (there[3:], [(8, 8)])
    assert exported(tmp_path, 8) == (there[5:], [])


def test_what_was_removed_is_not_missing(tmp_path: Path) -> None:
    """A damaged file is kept; those behind it went when they were committed."""
    log = opened(tmp_path)
    for _ in range(12):
        append(log, committed=True)
    log.close()
    files = sorted((tmp_path / "journal").glob("*.segment"))
    assert len(files) > 3
    files[0].rename(f"{files[0]}.damaged")
    files[1].unlink()
    positions, missing = exported(tmp_path, 0)
    assert (positions[0], positions[-1], missing) == (1, 12, [])
