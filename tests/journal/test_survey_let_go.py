"""What is told of files that are kept for their damage alone, and of those without anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.journal.directory import DiskDirectory
from ingestor.journal.survey import Survey, export, survey
from tests.journal.segment_files import (
    FIRST,
    broken,
    contents,
    entry,
    let_go,
    name,
    opened,
    put,
    segment,
    values,
)

HEADLESS = bytes(88) + entry(3)
"""A file of a third entry, whose header can't be read: so nothing says that those before it were committed."""


def looked(data_dir: Path, *, whole: bool) -> Survey:
    """What is found there."""
    found = survey(DiskDirectory.open(data_dir, create=False), whole=whole)
    assert found is not None
    return found


def exported(data_dir: Path, after: int | None) -> list[int]:
    """The positions that are exported."""
    return [each.position for each in export(DiskDirectory.open(data_dir, create=False), after)]


def test_what_was_let_go_is_exported_when_it_is_asked_for(tmp_path: Path) -> None:
    """It was committed, and is still there."""
    path = put(tmp_path, FIRST, segment(2, 3, entry(3)))
    (path / name(1)).rename(path / let_go(1))
    assert (looked(tmp_path, whole=False).committed, exported(tmp_path, None)) == (2, [3])
    assert [exported(tmp_path, after) for after in (0, 1, 2, 3)] == [[1, 2, 3], [2, 3], [3], []]


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_let_go_is_not_pending(tmp_path: Path, *, whole: bool) -> None:
    """Although nothing else says that it was committed. It is read when all is."""
    path = put(tmp_path, FIRST, HEADLESS)
    (path / name(1)).rename(path / let_go(1))
    found = looked(tmp_path, whole=whole)
    assert (found.committed, found.pending_entries, found.entries) == (0, 1, 3 if whole else 1)
    assert (exported(tmp_path, None), exported(tmp_path, 0)) == ([3], [3])
    with opened(tmp_path) as log:
        assert values(log) == {3: 3.0}


def test_a_damaged_file_behind_a_remnant_is_told(tmp_path: Path) -> None:
    """What is nothing hides nothing."""
    path = put(tmp_path, FIRST, bytes(88), bytes(200), segment(4, 3, entry(3)))
    assert looked(tmp_path, whole=False).damaged_files == [name(3)]
    assert set(contents(path)) == {name(number) for number in (1, 2, 3, 4)}


def test_what_is_lost_of_a_file_that_was_let_go_is_no_loss(tmp_path: Path) -> None:
    """It was committed before the log had done with the file."""
    path = put(tmp_path, broken(FIRST, 1), HEADLESS)
    (path / name(1)).rename(path / let_go(1))
    found = looked(tmp_path, whole=True)
    assert (found.gaps, found.pending_entries, found.entries) == ([], 1, 2)
