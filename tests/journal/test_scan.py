"""One file read from end to end: what is good, what is missing, and whose it is when its header does not say."""

from __future__ import annotations

from uuid import UUID

import pytest

from ingestor.journal import frames, segments
from ingestor.journal import scan as scan_module
from ingestor.journal.frames import Header
from ingestor.journal.scan import Scan, first_entry, journal_in
from ingestor.journal.segments import Bad, Frame, Segment, walk
from ingestor.model.delivery import Placed, Request
from tests.journal.forgetful_disk import Disk, OpenFile
from tests.journal.segment_files import JOURNAL, SEED, cursor, entries_in, entry, name, record, segment

ENTRY_BYTES = len(entry(1))


def file_of(data: bytes) -> OpenFile:
    """A file that holds these bytes."""
    file = Disk().boot().open_file(name(1), create=True)
    file.write(0, data)
    return file


def scanned(data: bytes, limit: int | None = None) -> tuple[Scan, list[int]]:
    """What is made of them, and the positions of what is good."""
    scan = Scan(1, limit)
    return scan, [frame.head.position for frame in scan.entries(file_of(data), SEED, len(data))]


def broken(data: bytes, position: int, at: int = 10) -> bytes:
    """With one byte of that entry changed: of its head, so that the next good frame has to be searched for, unless
    another is named."""
    at += entries_in(data)[position][0]
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


WHOLE = segment(1, 1, entry(1), cursor(1), entry(2), entry(3), entry(4, number=1))


def test_a_sound_file_is_read_to_its_end() -> None:
    """The last cursor counts, and where the last append began."""
    scan, good = scanned(WHOLE + cursor(2))
    assert good == [1, 2, 3, 4]
    assert (scan.hint, scan.append_first, scan.missing) == (2, 3, [])
    assert (scan.scarred, scan.bad_at_end, scan.cut_off) == (False, [], False)
    assert (scan.last, scan.end) == (4, len(WHOLE + cursor(2)))


def test_a_file_without_entries_has_none() -> None:
    """Its last position is the one before its first."""
    scan = Scan(7, None)
    assert list(scan.entries(file_of(segment(1, 7)), SEED, 88)) == []
    assert (scan.last, scan.end, scan.hint, scan.scarred, scan.cut_off) == (6, 88, None, False, False)


def test_a_position_that_is_skipped_is_a_scar_though_all_bytes_are_good() -> None:
    """Somebody cut the file together."""
    scan, good = scanned(segment(1, 1, entry(1), entry(4)))
    assert (good, scan.missing, scan.scarred) == ([1, 4], [(2, 3)], True)
    assert (scan.scars, scan.bad_at_end) == ([], [])


def test_a_position_that_comes_again_is_bad_bytes() -> None:
    """The first of the two counts."""
    data = segment(1, 1, entry(1), entry(2), entry(2, 9.0), entry(1, 9.0), entry(3))
    scan, good = scanned(data)
    again = len(entry(1)) * 2 + 88
    assert good == [1, 2, 3]
    assert scan.scars == [Bad(again, again + ENTRY_BYTES), Bad(again + ENTRY_BYTES, again + 2 * ENTRY_BYTES)]
    assert (scan.missing, scan.bad_at_end, scan.scarred) == ([], [], True)


def test_bad_bytes_before_good_ones_are_a_scar_and_behind_them_an_end() -> None:
    """The one is damage, the other what an append left."""
    places = entries_in(WHOLE)
    scan, _ = scanned(broken(WHOLE, 2))
    assert (scan.missing, scan.scars, scan.bad_at_end) == ([(2, 2)], [Bad(*places[2])], [])
    scan, _ = scanned(broken(WHOLE, 4))
    assert (scan.missing, scan.scars, scan.bad_at_end) == ([], [], [Bad(*places[4])])
    assert (scan.last, scan.end, scan.scarred) == (3, places[3][1], False)
    scan, _ = scanned(broken(broken(WHOLE, 2), 4))
    assert (scan.missing, scan.scars, scan.bad_at_end) == ([(2, 2)], [Bad(*places[2])], [Bad(*places[4])])
    scan, _ = scanned(broken(WHOLE, 4) + cursor(3))
    assert (scan.missing, scan.scars, scan.bad_at_end) == ([], [Bad(*places[4])], [])
    assert (scan.scarred, scan.end) == (True, len(WHOLE + cursor(3)))


def test_a_cursor_behind_bad_bytes_says_that_entries_were_there() -> None:
    """Until one comes behind it, which says how many. What is no longer than a cursor was one."""
    lost = broken(WHOLE, 4) + cursor(3)
    assert scanned(lost)[0].lost_end
    assert scanned(lost + cursor(3))[0].lost_end
    scan, good = scanned(lost + entry(5))
    assert (good, scan.missing, scan.lost_end) == ([1, 2, 3, 5], [(4, 4)], False)
    assert not scanned(broken(WHOLE, 4))[0].lost_end
    assert not scanned(WHOLE + bytes(len(cursor(3))) + cursor(3))[0].lost_end
    assert scanned(WHOLE + bytes(len(cursor(3)) + 8) + cursor(3))[0].lost_end


def test_what_is_void_is_not_looked_at() -> None:
    """Nor is what comes behind it: a cursor of an append that failed may say anything."""
    scan, good = scanned(WHOLE + cursor(9), limit=4)
    assert (scan.hint, good, scan.end) == (1, [1, 2, 3], entries_in(WHOLE)[3][1])
    assert (scan.scarred, scan.bad_at_end, scan.cut_off) == (False, [], False)


def test_what_should_come_before_the_limit_is_cut_off() -> None:
    """Whatever the bytes behind the good ones are; without a limit nobody knows of any."""
    assert not scanned(WHOLE, limit=5)[0].cut_off
    assert scanned(WHOLE, limit=6)[0].cut_off
    assert scanned(broken(WHOLE, 4), limit=5)[0].cut_off
    assert not scanned(broken(WHOLE, 4), limit=4)[0].cut_off
    assert not scanned(broken(WHOLE, 4))[0].cut_off
    assert scanned(broken(WHOLE, 4), limit=5)[0].scarred, "bad bytes in place of an entry"
    assert not scanned(WHOLE, limit=6)[0].scarred, "it may have been in another file"


def test_a_file_is_there_for_no_position_at_first() -> None:
    """It ends with its header, and behind what was given out before it."""
    found = Segment(name(1), Header(JOURNAL, None, 1, 5, 4, 0, 0), 88)
    assert (found.first, found.last, found.empty) == (5, 4, True)
    assert (found.end, found.headless, found.held_bytes(0)) == (88, False, 0)


def test_where_entries_begin_is_remembered_every_64_kib() -> None:
    """What is read later is searched for from there."""
    data = segment(1, 1, *(entry(position) for position in range(1, 1_001)))
    places = entries_in(data)
    found = Segment(name(1), Header(JOURNAL, None, 1, 1, 0, 0, 0), len(data))
    for position, (offset, _) in places.items():
        found.mark(position, offset)
    found.last, found.end = 1_000, len(data)
    offsets = {found.offset_before(position) for position in range(1, 1_001)}
    assert len(offsets) == 1 + (len(data) - 88) // (64 * 1024 + ENTRY_BYTES)
    for position in range(1, 1_001):
        before = places[position][0] - found.offset_before(position)
        assert 0 <= before < 64 * 1024 + ENTRY_BYTES
    assert found.held_bytes(1_000) == 0
    assert found.held_bytes(0) == len(data) - 88


def test_the_first_entry_is_found_behind_cursors() -> None:
    """They have positions of their own."""
    data = segment(1, 7, cursor(3), entry(7), entry(8))
    assert first_entry(file_of(data), SEED, len(data)) == 7
    assert first_entry(file_of(broken(data, 7)), SEED, len(data)) == 8
    assert first_entry(file_of(segment(1, 7, cursor(3))), SEED, len(data)) is None


@pytest.mark.parametrize("window_bytes", [96, 100, 256])
def test_whose_file_it_is_is_found_wherever_its_cursor_stands(
    monkeypatch: pytest.MonkeyPatch, window_bytes: int
) -> None:
    """Also across the border of what is read at once, and behind bytes that only begin like a frame."""
    monkeypatch.setattr(scan_module, "WINDOW_BYTES", window_bytes)
    for before in range(0, 2 * window_bytes, 8):
        data = (frames.MARKER + bytes(12)) * (before // 16) + bytes(before % 16) + cursor(1)
        assert journal_in(file_of(data), len(data)) == JOURNAL
        assert journal_in(file_of(data), len(data) - 1) is None, "it is cut off"
    assert journal_in(file_of(b""), 0) is None


def test_another_journals_entry_says_nothing_of_whose_file_it_is() -> None:
    """Nor does a cursor that is damaged."""
    data = cursor(1)
    for at in (9, 50, 60, 70):
        changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        assert journal_in(file_of(entry(1) + changed), len(entry(1) + changed)) is None
    assert journal_in(file_of(entry(1)), ENTRY_BYTES) is None


@pytest.mark.parametrize("window_bytes", [48, 64, 233, 466, 480, 500, 700, 4_096])
def test_a_walk_finds_the_same_whatever_it_reads_at_once(
    monkeypatch: pytest.MonkeyPatch, window_bytes: int
) -> None:
    """Frames lie across the borders, and so do bad bytes and what follows them."""
    monkeypatch.setattr(segments, "WINDOW_BYTES", window_bytes)
    data = broken(broken(WHOLE, 3, at=100), 1)
    found = list(walk(file_of(data), SEED, 88, len(data), window_bytes))
    places = entries_in(WHOLE)
    assert [(type(each), each.offset, each.end) for each in found] == [
        (Bad, *places[1]),
        (Frame, places[1][1], places[1][1] + len(cursor(1))),
        (Frame, *places[2]),
        (Bad, *places[3]),
        (Frame, *places[4]),
    ]
    assert [each.head.position for each in found if isinstance(each, Frame)] == [1, 2, 4]


def test_a_walk_ends_where_it_is_told() -> None:
    """A frame that is longer is bad: the rest of it was cut off, or is not synced yet."""
    places = entries_in(WHOLE)
    file = file_of(WHOLE)
    for end in (places[3][1] - 8, places[3][0] + 48, places[3][0] + 8):
        found = list(walk(file, SEED, places[2][0], end))
        assert [type(each) for each in found] == [Frame, Bad]
        assert (found[1].offset, found[1].end) == (places[3][0], end)
    assert [each.end for each in walk(file, SEED, places[2][0], places[3][1])] == [places[2][1], places[3][1]]
    file = file_of(broken(WHOLE, 2))
    assert list(walk(file, SEED, places[2][0], places[3][1] - 8)) == [Bad(places[2][0], places[3][1] - 8)]


def test_frames_of_another_journal_are_none() -> None:
    """The id is in every checksum."""
    data = segment(1, 1, entry(1))
    other = frames.seed(UUID(int=5))
    assert list(walk(file_of(data), other, 88, len(data))) == [Bad(88, len(data))]


def test_a_frame_right_behind_eight_bad_bytes_is_found() -> None:
    """It is the nearest that one can be."""
    data = segment(1, 1, bytes(8), entry(1))
    found = list(walk(file_of(data), SEED, 88, len(data)))
    assert [(type(each), each.offset) for each in found] == [(Bad, 88), (Frame, 96)]


def test_a_frame_where_none_can_begin_is_none() -> None:
    """They are written to multiples of eight; what looks like one elsewhere is what somebody sent."""
    data = segment(1, 1, bytes(12), entry(1), bytes(4))
    assert list(walk(file_of(data), SEED, 88, len(data))) == [Bad(88, len(data))]


def test_bytes_that_begin_like_a_frame_are_part_of_the_bad_ones() -> None:
    """Bad bytes are told as one range, whatever is in them."""
    data = segment(1, 1, frames.MARKER + bytes(12), frames.MARKER + bytes(60), entry(1))
    found = list(walk(file_of(data), SEED, 88, len(data)))
    assert [(type(each), each.offset) for each in found] == [(Bad, 88), (Frame, 88 + 80)]


def test_a_frame_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer is not written; what claims to be is not read, so that no length has memory taken for it."""
    data = entry(1)
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", ENTRY_BYTES)
    assert entry(1) == data
    assert frames.decode_head(SEED, data) is not None
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", ENTRY_BYTES - 8)
    with pytest.raises(ValueError, match=r"an entry of \d+ bytes is more than a journal's frame holds"):
        entry(1)
    assert frames.decode_head(SEED, data) is None
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", ENTRY_BYTES)
    request = Placed(0, 1, Request("", "r", b"", 1))
    with pytest.raises(ValueError, match="more than a journal's frame holds"):
        frames.encode_entry(SEED, 1, record(1).batch, 0, requests=(request,), number=0)
