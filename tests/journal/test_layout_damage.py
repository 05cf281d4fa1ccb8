"""What the log makes of files that are broken: what is lost is named, what is good is read, the file is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestor.journal.directory import DiskFile
from ingestor.journal.parts import Gap
from tests.journal.segment_files import (
    FIRST,
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


def test_a_hole_in_the_very_last_append_is_doubtful(tmp_path: Path) -> None:
    """A power loss may leave a later block of an append without an earlier one; nobody was told that it was there.
    What is missing of an earlier append had been acknowledged."""
    data = segment(1, 1, entry(1), entry(2), cursor(0), entry(3), entry(4, number=1), entry(5, number=2))
    put(tmp_path, broken(broken(data, 2), 3))
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(2, 3, name(1))]
    (tmp_path / "second").mkdir()
    put(tmp_path / "second", broken(data, 3))
    with opened(tmp_path / "second") as log:
        assert log.recovery.gaps == [Gap(3, 3, name(1), doubtful=True)]
        assert values(log) == {1: 1.0, 2: 2.0, 4: 4.0, 5: 5.0}


def test_a_hole_in_the_last_append_of_an_earlier_file_is_a_loss(tmp_path: Path) -> None:
    """It had been synced when the next file was begun."""
    first = segment(1, 1, entry(1), entry(2), entry(3, number=1))
    put(tmp_path, broken(first, 2), segment(2, 4, entry(4)))
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(2, 2, name(1), doubtful=False)]


def test_what_was_lost_before_the_last_cursor_is_told(tmp_path: Path) -> None:
    """A cursor comes after entries that are gone, how many nobody can say. They count as one, whose position isn't
    given out again."""
    whole = segment(1, 1, entry(1), entry(2), entry(3), cursor(1))
    path = put(tmp_path, broken(broken(whole, 2), 3))
    with opened(tmp_path) as log:
        assert (log.committed_hint, log.last) == (1, 2)
        assert (log.recovery.gaps, log.recovery.damaged) == ([Gap(2, 2, name(1), doubtful=True)], [aside(1)])
        log.append([record(3, 99.0)])
        assert values(log) == {1: 1.0, 3: 99.0}
    assert set(contents(path)) == {aside(1), name(2)}


def test_bad_bytes_that_may_have_been_a_cursor_were_no_entry(tmp_path: Path) -> None:
    """Before another cursor, and no longer than one. They are damage all the same."""
    put(tmp_path, segment(1, 1, entry(1), bytes(len(cursor(0))), cursor(0)))
    with opened(tmp_path) as log:
        assert (log.last, log.recovery.gaps, log.recovery.damaged) == (1, [], [aside(1)])


def test_damage_to_what_is_committed_is_no_loss(tmp_path: Path) -> None:
    """The file is damaged all the same, and is kept."""
    put(tmp_path, segment(1, 1, entry(1), broken(segment(1, 1, entry(2)), 2)[88:], entry(3), cursor(2)))
    with opened(tmp_path) as log:
        assert (log.committed_hint, log.recovery.gaps, log.recovery.damaged) == (2, [], [aside(1)])
        assert values(log, 2) == {3: 3.0}


def test_a_position_that_was_committed_is_not_given_out_again(tmp_path: Path) -> None:
    """Not even when its entry is gone: the database would take the new one for what it has."""
    put(tmp_path, segment(1, 1, entry(1), broken(segment(1, 1, entry(2)), 2)[88:], cursor(2)))
    with opened(tmp_path) as log:
        assert (log.last, log.committed_hint, log.recovery.gaps) == (2, 2, [])
        log.append([record(3)])
        assert values(log, 2) == {3: 3.0}


def test_the_end_of_an_earlier_file_that_is_torn_is_damage(tmp_path: Path) -> None:
    """Only the newest file can end in what was never acknowledged."""
    whole = segment(2, 3, entry(3), entry(4))
    path = put(tmp_path, FIRST, whole[:-1], segment(3, 5, entry(5)))
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(4, 4, name(2))]
        assert log.recovery.damaged == [aside(2)]
        assert values(log) == {1: 1.0, 2: 2.0, 3: 3.0, 5: 5.0}
    assert contents(path)[aside(2)] == whole[:-1]


def test_an_earlier_file_that_ends_too_soon_is_damaged(tmp_path: Path) -> None:
    """Although what is left of it is good to the last byte, and the next one is there."""
    path = put(tmp_path, segment(1, 1, entry(1)), segment(2, 3, entry(3)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([Gap(2, 2, name(1))], [aside(1)])
    assert set(contents(path)) == {aside(1), name(2)}


def test_two_files_that_were_only_just_being_made_are_remnants(tmp_path: Path) -> None:
    """The second of two starts that failed could not remove what the first had left: nothing is lost."""
    path = put(tmp_path, FIRST, bytes(88), b"")
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged, log.last) == ([], [], 2)
        assert log.size_bytes == len(FIRST)
    assert set(contents(path)) == {name(1)}


def test_what_a_file_has_beyond_the_next_ones_beginning_is_void(tmp_path: Path) -> None:
    """That is what a failed append leaves: nobody was told that it was there, and other entries have the
    positions now."""
    path = put(
        tmp_path, segment(1, 1, entry(1), cursor(0), entry(2, 90.0), entry(3, 91.0)), segment(2, 2, entry(2))
    )
    before = contents(path)
    with opened(tmp_path) as log:
        assert (values(log), log.last) == ({1: 1.0, 2: 2.0}, 2)
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [])
    assert contents(path)[name(1)] == before[name(1)]


def test_a_file_that_begins_earlier_makes_void_what_all_before_it_have(tmp_path: Path) -> None:
    """Not only the one before it."""
    void = entry(3, 90.0), entry(4, 91.0)
    put(
        tmp_path,
        segment(1, 1, entry(1), cursor(0), entry(2), *void),
        segment(2, 5, entry(5, 92.0)),
        segment(3, 3, entry(3), entry(4)),
    )
    with opened(tmp_path) as log:
        assert (values(log), log.last) == ({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, 4)
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [])


def test_damage_that_was_found_once_is_known_at_the_next_start(tmp_path: Path) -> None:
    """The file has its place in the log under its new name, until the database has what is good in it; and then
    it is kept all the same."""
    path = put(tmp_path, broken(segment(1, 1, entry(1), cursor(0), entry(2), entry(3)), 2))
    for called in (name(1), aside(1)):
        with opened(tmp_path) as log:
            assert (log.recovery.gaps, log.recovery.damaged) == ([Gap(2, 2, called)], [aside(1)])
            assert values(log) == {1: 1.0, 3: 3.0}
    with opened(tmp_path) as log:
        log.append([record(4)])
        log.committed(4)
        assert log.first == 4
    assert set(contents(path)) == {let_go(1), name(2)}


def test_a_newest_file_that_lost_all_is_told_of_at_the_next_start_too(
    tmp_path: Path, warnings: list[str]
) -> None:
    """The file that was begun behind it follows what it had. That it may never have been acknowledged is known to
    the first start alone, so the second claims neither."""
    put(tmp_path, FIRST, broken(segment(2, 3, entry(3), cursor(0)), 3))
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(3, 3, name(2), doubtful=True)]
        log.append([record(4)])
        assert values(log) == {1: 1.0, 2: 2.0, 4: 4.0}
    warnings.clear()
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(3, 3, aside(2))]
        assert values(log) == {1: 1.0, 2: 2.0, 4: 4.0}
    assert len(warnings) == 1
    assert "entries 3 to 3" in warnings[0]
    assert "never acknowledged" in warnings[0]


def test_damage_that_is_met_while_reading_is_set_aside_as_well(tmp_path: Path) -> None:
    """Bytes can go bad while the server runs. It says so once, and writes to that file no more."""
    path = put(tmp_path, segment(1, 1, entry(1), cursor(0), entry(2), entry(3)))
    with opened(tmp_path) as log:
        (path / name(1)).write_bytes(broken((path / name(1)).read_bytes(), 2))
        for _ in range(2):
            assert values(log) == {1: 1.0, 3: 3.0}
            assert log.recovery.gaps == [Gap(2, 2, name(1))]
            assert log.recovery.damaged == [aside(1)]
        log.append([record(4)])
        assert values(log, 3) == {4: 4.0}
    assert set(contents(path)) == {aside(1), name(2)}


def test_of_files_that_are_committed_only_headers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start doesn't take longer for what is retained. So nobody looks for damage there either: a sound copy is
    in the database."""
    long = [segment(n, n * 100, *(entry(n * 100 + i) for i in range(100))) for n in range(1, 6)]
    put(tmp_path, *(broken(data, n * 100 + 50) for n, data in enumerate(long, 1)))
    last = segment(6, 600, entry(600), committed=599)
    (tmp_path / "journal" / name(6)).write_bytes(last)
    read: list[int] = []
    real = DiskFile.read

    def counted(file: DiskFile, offset: int, size: int) -> bytes:
        data = real(file, offset, size)
        read.append(len(data))
        return data

    monkeypatch.setattr(DiskFile, "read", counted)
    with opened(tmp_path, looks=False) as log:
        assert sum(read) <= 5 * 4096 + 2 * len(last)
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [])
        assert (log.first, log.last, log.committed_hint) == (100, 600, 599)


def test_a_journal_of_nothing_readable_says_so(tmp_path: Path) -> None:
    """One file that no entry had come to yet, with a bad header: the cursors in it say whose it is."""
    data = bytearray(segment(1, 1, cursor(0)))
    data[50] ^= 1
    put(tmp_path, bytes(data))
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(1, 1, name(1))]
        assert (log.committed_hint, log.is_pending) == (0, False)
        assert log.rewound(0) == (1, 1)
        assert log.recovery.gaps == [Gap(1, 1, name(1))]
        log.append([record(log.last + 1)])
        assert values(log) == {2: 2.0}


def test_damage_in_an_earlier_file_is_known_before_anything_is_read(tmp_path: Path) -> None:
    """The start says it, and readiness and metrics can: nobody has to come to it first."""
    put(tmp_path, broken(segment(1, 1, entry(1), entry(2), entry(3)), 2), segment(2, 4, entry(4)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([Gap(2, 2, name(1))], [aside(1)])


def test_an_earlier_file_without_a_header_is_kept(tmp_path: Path) -> None:
    """Its entries are good; what else its header said nobody knows."""
    data = bytearray(segment(1, 1, entry(1), entry(2)))
    data[60] ^= 1
    put(tmp_path, bytes(data), segment(2, 3, entry(3)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [aside(1)])
        assert values(log) == {1: 1.0, 2: 2.0, 3: 3.0}
