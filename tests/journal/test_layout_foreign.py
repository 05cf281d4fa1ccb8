"""What isn't this journal's stops the start, before anything is changed."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID
from zlib import crc32

import pytest

from tests.journal.segment_files import (
    FIRST,
    JOURNAL,
    aside,
    contents,
    entry,
    name,
    opened,
    put,
    refusal,
    refusal_to_look,
    segment,
    values,
)

OTHER = UUID(int=1)
FOREIGN = b"GIF89a" + bytes(100)


def later(version: int, header_bytes: int) -> bytes:
    """A file of a release to come, which may have more to say in its header."""
    begin = segment(2, 3)[:8] + version.to_bytes(2, "little") + header_bytes.to_bytes(2, "little")
    data = begin + bytes(header_bytes - 4 - len(begin))
    return data + crc32(data).to_bytes(4, "little")


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
