"""What the log makes of whole files that are missing, broken or somebody else's.

What isn't this journal's stops the start before anything is changed. What is missing is named by its positions,
no more and no fewer, and only as far as the database may not have it.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID
from zlib import crc32

import pytest

from ingestor.journal import frames
from ingestor.journal.directory import DiskFile
from ingestor.journal.frames import Header
from ingestor.journal.parts import Gap
from ingestor.journal.recovery import Recovery
from tests.journal.segment_files import (
    JOURNAL,
    contents,
    cursor,
    entries_in,
    entry,
    name,
    opened,
    put,
    record,
    refusal,
    refusal_to_look,
    segment,
    values,
)

OTHER = UUID(int=1)
FIRST = segment(1, 1, entry(1), cursor(0), entry(2))
FOREIGN = b"GIF89a" + bytes(100)


def aside(sequence: int) -> str:
    """The name of a file that is kept for its damage."""
    return name(sequence) + ".damaged"


def broken(data: bytes, position: int) -> bytes:
    """The file with one byte of that entry changed."""
    begin, end = entries_in(data)[position]
    at = (begin + end) // 2
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def later(version: int, header_bytes: int) -> bytes:
    """A file of a release to come, which may have more to say in its header."""
    begin = segment(2, 3)[:8] + version.to_bytes(2, "little") + header_bytes.to_bytes(2, "little")
    data = begin + bytes(header_bytes - 4 - len(begin))
    return data + crc32(data).to_bytes(4, "little")


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
    assert set(contents(path)) == {aside(1), name(2)}


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


@pytest.mark.parametrize(
    ("file", "data", "says"),
    [
        ("notes.txt", b"mine", "notes.txt is no file of the journal's: move it away"),
        ("2.segment", segment(2, 3), "2.segment is no file of the journal's: move it away"),
        (name(2), FOREIGN, "000000000002.segment is no file of the journal's: move it away"),
        (
            name(2),
            later(2, 88),
            "000000000002.segment has the format version 2, of a later release: start the release that wrote it",
        ),
        (name(2), later(513, 128), "000000000002.segment has the format version 513, of a later release"),
        (
            name(2),
            segment(2, 3, journal=OTHER),
            f"000000000001.segment belongs to another journal, {JOURNAL}, than the newest file, {OTHER}: move the",
        ),
        (
            name(3),
            segment(2, 3, entry(3)),
            "000000000003.segment was called 000000000002.segment when it was written: give it its name back",
        ),
    ],
    ids=["name", "short number", "foreign", "newer", "newer and longer", "other journal", "renamed"],
)
def test_what_is_not_this_journals_stops_the_start(tmp_path: Path, file: str, data: bytes, says: str) -> None:
    """It names the file, what is wrong with it and what to do, and changes nothing."""
    path = put(tmp_path, FIRST)
    (path / file).write_bytes(data)
    before = contents(path)
    for _ in range(2):  # the lock is let go of
        assert refusal(tmp_path).startswith(f"{path}/{says}")
        assert refusal_to_look(tmp_path) == refusal(tmp_path)
        assert contents(path) == before


def test_two_files_with_one_number_stop_the_start(tmp_path: Path) -> None:
    """Which of them is the journal's the log doesn't choose."""
    path = put(tmp_path, FIRST)
    (path / aside(1)).write_bytes(FIRST)
    said = refusal(tmp_path)
    assert "has the number of 000000000001.segment" in said
    assert said.endswith(": move one of them away")
    assert contents(path) == {name(1): FIRST, aside(1): FIRST}


def test_files_that_say_nothing_of_any_journal_stop_the_start(tmp_path: Path) -> None:
    """Whether they are this journal's is anybody's guess. Foreign ones are called that."""
    path = put(tmp_path, bytes(200))
    assert refusal(tmp_path) == (
        f"{path}/000000000001.segment has no readable header, and nothing else here says which journal this is:"
        " restore it, or move all files here away"
    )
    (path / name(1)).write_bytes(FOREIGN)
    assert refusal(tmp_path) == f"{path}/000000000001.segment is no file of the journal's: move it away"
    assert contents(path) == {name(1): FOREIGN}


@pytest.mark.parametrize("files", [(FIRST,), ()], ids=["newest", "only"])
def test_a_short_foreign_file_is_not_removed(tmp_path: Path, files: tuple[bytes, ...]) -> None:
    """It may be what somebody misses. It can't be a header that was cut off: that begins as ours do, or with
    zeros. (Between two others it is refused, whatever its size.)"""
    path = put(tmp_path, *files, b"somebody's notes")
    before = contents(path)
    said = refusal(tmp_path)
    assert said == refusal_to_look(tmp_path)
    assert said.endswith("is no file of the journal's: move it away")
    assert contents(path) == before


def test_hidden_files_and_directories_are_nobodys_business(tmp_path: Path) -> None:
    """File systems and their tools put such things anywhere."""
    path = put(tmp_path, FIRST)
    (path / ".nfs0001").write_bytes(b"")
    (path / "lost+found").mkdir()
    with opened(tmp_path) as log:
        assert values(log) == {1: 1.0, 2: 2.0}
    assert (path / ".nfs0001").exists()


def test_a_link_is_not_followed_out_of_the_directory(tmp_path: Path) -> None:
    """Whoever could put one there must not have the log write to a file elsewhere."""
    path = put(tmp_path, FIRST)
    (tmp_path / "elsewhere").write_bytes(segment(2, 3))
    (path / name(2)).symlink_to(tmp_path / "elsewhere")
    assert refusal(tmp_path).endswith("can't be used: too many levels of symbolic links")
    (path / name(2)).unlink()
    (path / name(2)).hardlink_to(tmp_path / "elsewhere")
    assert "000000000002.segment is not a plain file with one name" in refusal(tmp_path)
    assert (tmp_path / "elsewhere").read_bytes() == segment(2, 3)


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


def test_a_gap_is_known_only_when_all_of_it_is() -> None:
    """One that reaches beyond what was told is told, too."""
    recovery = Recovery()
    assert recovery.note(Gap(5, 9, name(1)))
    for first, last in ((5, 9), (6, 8), (5, 5)):
        assert not recovery.note(Gap(first, last, name(2)))
    for first, last in ((4, 9), (5, 10), (20, 21)):
        assert recovery.note(Gap(first, last, name(2)))
