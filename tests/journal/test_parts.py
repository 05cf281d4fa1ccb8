"""Which file is there for what, and which one is blamed: of journals that no ordinary accident leaves."""

from __future__ import annotations

from pathlib import Path

from ingestor.journal.parts import Gap
from tests.journal.segment_files import (
    FIRST,
    aside,
    cursor,
    entry,
    name,
    opened,
    put,
    segment,
    values,
)


def test_what_a_failed_append_left_before_a_cursor_was_made_good(tmp_path: Path) -> None:
    """Its entries stand whole in the next file, so nothing is lost; the bytes are damage all the same."""
    put(tmp_path, segment(1, 1, entry(1), bytes(len(entry(2))), cursor(0)), segment(2, 2, entry(2)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [aside(1)])
        assert values(log) == {1: 1.0, 2: 2.0}


def test_an_oldest_file_that_is_void_does_not_say_what_was_removed(tmp_path: Path) -> None:
    """The next one has its positions, and says what stood before them."""
    put(tmp_path, segment(1, 5), segment(2, 3, entry(3), entry(4)))
    with opened(tmp_path) as log:
        assert (log.committed_hint, values(log, 2)) == (2, {3: 3.0, 4: 4.0})
        assert log.held_bytes >= 2 * len(entry(3))


def test_a_remnant_before_the_oldest_file_had_nothing(tmp_path: Path) -> None:
    """What stands before that was removed, and so committed."""
    for number, remnant in enumerate((b"", bytes(88))):
        put(tmp_path / str(number), remnant, segment(2, 3, entry(3)))
        with opened(tmp_path / str(number)) as log:
            assert (log.committed_hint, log.recovery.damaged, log.recovery.gaps) == (2, [], [])


def test_a_file_without_anything_is_blamed_for_what_is_missing_where_it_stands(tmp_path: Path) -> None:
    """Rather than the one before it, which is missing altogether; and no other that stands elsewhere."""
    path = put(tmp_path, FIRST, b"", bytes(200), segment(4, 7, entry(7)))
    (path / name(2)).unlink()
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([Gap(3, 6, name(3))], [aside(3)])
    elsewhere = tmp_path / "elsewhere"
    path = put(elsewhere, bytes(200), segment(2, 1, entry(1)), b"", segment(4, 3, entry(3)), bytes(200))
    (path / name(3)).unlink()
    with opened(elsewhere) as log:
        assert log.recovery.gaps == [Gap(2, 2, name(3)), Gap(4, 4, name(5))]


def test_without_any_header_nothing_is_known_to_be_committed(tmp_path: Path) -> None:
    """A cursor in an earlier file says whose they are, and nothing of the newest."""
    put(tmp_path, bytes(88) + entry(1) + cursor(0), bytes(88) + entry(2))
    with opened(tmp_path) as log:
        assert (log.committed_hint, log.last) == (0, 2)
        assert values(log) == {1: 1.0, 2: 2.0}
