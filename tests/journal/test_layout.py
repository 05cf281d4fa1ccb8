"""The log's bytes: what they are, and what is made of them when the last ones are missing or any one is wrong.

An operator may find these files years later, so their layout must not change unnoticed. And whatever happens to
them, the log says exactly what is lost and never hands out anything that wasn't put in.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from loguru import logger

from ingestor.journal import recovery as recovery_module
from ingestor.journal.frames import Header, decode_head, decode_header, encode_entry, encode_header, seed
from ingestor.journal.log import SegmentLog
from ingestor.journal.parts import Gap
from ingestor.journal.records import Record
from ingestor.model import MetricBatch, Request, Row
from ingestor.model.delivery import Placed
from tests.journal.forgetful_disk import Disk
from tests.journal.segment_files import (
    JOURNAL,
    LIMITS,
    MANY,
    NOW_S,
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

DATABASE = UUID("ffeeddcc-bbaa-9988-7766-554433221100")
TWO_ROWS = MetricBatch.of_rows(
    [
        Row(1_600_000_000_000_000, "api", "latency", 1.5, 7),
        Row(1_600_000_000_000_001, "api", "latency", -2.0),
    ],
    {7: '{"zone":"a"}'},
)
REQUEST = Placed(0, 2, Request("caller", "id-1", b"f" * 16, 2, b"no"))
RECORDS = [
    Record(1, TWO_ROWS, 1_700_000_000_000_000, (REQUEST,)),
    Record(2, MetricBatch.of_row(Row(0, "s", "m", 3.0), {}), 1_700_000_000_000_001),
]

# Magic, format version 1, header length 88, journal's id, database's id; sequence 2, first position 1, which
# follows 0, committed 0, created at NOW_S, CRC32 of all these.
HEADER = """
ff494e474c4f470a 0100 5800 00112233445566778899aabbccddeeff ffeeddccbbaa99887766554433221100
0200000000000000 0100000000000000 0000000000000000 0000000000000000 20e12518240a0600 cb67bf7e
"""
# A head: marker, its CRC32, that of meta and body, length of the body, of the meta, rows, position, taken at;
# kind 1 (an entry), three zeros, number in its append. The checksums begin with that of the journal's id.
HEAD_1 = """
ff494e4a 3c30f144 b0401a2b d8010000 70000000 02000000 0100000000000000 00401e18240a0600 01 000000 00000000
"""
# Label sets by id; requests as first row, rows, caller, id, fingerprint, accepted rows, rejected rows (the two
# opaque ones in base64); spaces up to a multiple of eight bytes.
META_1 = (
    b'{"labels":{"7":"{\\"zone\\":\\"a\\"}"},'
    b'"requests":[[0,2,"caller","id-1","ZmZmZmZmZmZmZmZmZmZmZg==",2,"bm8="]]}      '
)
# An Arrow IPC record batch message: its own head, and the five columns.
BODY_1 = """
ffffffff6801000014000000000000000c0016000600050008000c000c0000000003040018000000680000000000000000000a00
18000c00040008000a000000dc000000100000000200000000000000000000000c00000000000000000000000000000000000000
000000000000000010000000000000001000000000000000000000000000000010000000000000000c0000000000000020000000
0000000006000000000000002800000000000000000000000000000028000000000000000c000000000000003800000000000000
0e000000000000004800000000000000000000000000000048000000000000001000000000000000580000000000000000000000
00000000580000000000000010000000000000000000000005000000020000000000000000000000000000000200000000000000
00000000000000000200000000000000000000000000000002000000000000000000000000000000020000000000000000000000
000000000000a40731af05000100a40731af05000000000003000000060000000000000061706961706900000000000007000000
0e000000000000006c6174656e63796c6174656e63790000000000000000f83f00000000000000c0070000000000000000000000
00000000
"""
# The second of the same append: number 1. Without labels and requests there is no meta.
HEAD_2 = """
ff494e4a f33ee331 eddda5f5 a8010000 00000000 01000000 0200000000000000 01401e18240a0600 01 000000 01000000
"""
BODY_2 = """
ffffffff6801000014000000000000000c0016000600050008000c000c0000000003040018000000380000000000000000000a00
18000c00040008000a000000dc000000100000000100000000000000000000000c00000000000000000000000000000000000000
00000000000000000800000000000000080000000000000000000000000000000800000000000000080000000000000010000000
00000000010000000000000018000000000000000000000000000000180000000000000008000000000000002000000000000000
01000000000000002800000000000000000000000000000028000000000000000800000000000000300000000000000000000000
00000000300000000000000008000000000000000000000005000000010000000000000000000000000000000100000000000000
00000000000000000100000000000000000000000000000001000000000000000000000000000000010000000000000000000000
0000000000000000000000000000000001000000730000000000000000000000010000006d000000000000000000000000000840
0000000000000000
"""
# Kind 2: all up to position 0 is committed, noted at NOW_S. Its meta is the journal's id and the database's.
CURSOR = """
ff494e4a 88530feb 4ef0ee86 00000000 20000000 00000000 0000000000000000 20e12518240a0600 02 000000 00000000
00112233445566778899aabbccddeeff ffeeddccbbaa99887766554433221100
"""
GOLDEN = b"".join(
    part if isinstance(part, bytes) else bytes.fromhex(part)
    for part in (HEADER, HEAD_1, META_1, BODY_1, HEAD_2, BODY_2, CURSOR)
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """It says thousands of times what it found."""
    logger.disable("ingestor")
    yield
    logger.enable("ingestor")


def test_the_format_is_this_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written for these inputs. If this fails, files of the last release may not be read by the next, nor
    the other way round: that takes a new format version. (A release of Arrow may lay out a body otherwise. As
    long as the next test passes, that is none.)"""
    monkeypatch.setattr(recovery_module, "uuid4", lambda: JOURNAL)
    with opened(tmp_path) as log:
        log.bind(DATABASE)
        log.append(RECORDS)
    assert contents(tmp_path / "journal") == {name(2): GOLDEN}


def test_what_was_written_once_is_read_for_ever(tmp_path: Path) -> None:
    """The very same bytes, found by a later release."""
    (put(tmp_path) / name(2)).write_bytes(GOLDEN)
    with opened(tmp_path) as log:
        assert (log.id, log.database) == (JOURNAL, DATABASE)
        assert (log.first, log.last, log.committed_hint) == (1, 2, 0)
        assert (log.recovery.torn_bytes, log.recovery.gaps, log.recovery.damaged) == (0, [], [])
        for found, given in zip(log.read(0, MANY, MANY), RECORDS, strict=True):
            assert found[::2] == given[::2]
            assert found.requests == given.requests
            assert found.batch.columns.equals(given.batch.columns)
            assert found.batch.label_sets == given.batch.label_sets


def test_a_database_that_is_not_known_is_zeros() -> None:
    """In headers and cursors; and it is read as unknown."""
    header = Header(JOURNAL, None, 1, 1, 0, 0, 0)
    data = encode_header(header)
    assert data[28:44] == cursor(1)[-16:] == bytes(16)
    assert decode_header(data) == header
    known = header._replace(database=DATABASE)
    assert decode_header(encode_header(known)) == known


@pytest.mark.parametrize("rows", range(1, 10))
def test_every_frame_is_a_multiple_of_eight_bytes_long(rows: int) -> None:
    """Whatever is in it: the next good one is looked for at such places alone."""
    labels = {number: "x" * number for number in range(rows)}
    batch = MetricBatch.of_rows([Row(0, "s" * rows, "m", 1.0, number) for number in range(rows)], labels)
    request = Placed(0, rows, Request("", "r" * rows, b"f" * 16, rows))
    for requests in ((), (request,)):
        assert len(encode_entry(seed(JOURNAL), 1, batch, 0, requests=requests, number=0)) % 8 == 0


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is opened so often that a real disk would take minutes; and here no power fails."""
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("zeros", [False, True], ids=["shorter", "zeros"])
def test_a_file_that_ends_in_any_byte_of_the_last_append_keeps_all_before(
    tmp_path: Path, zeros: bool
) -> None:
    """Where the power fails during an append, the rest of it is missing, or there as zeros. Entries of that append
    that are whole are kept; the rest is cut off, and its positions are given out again."""
    whole = segment(1, 1, entry(1), cursor(0), entry(2), entry(3), entry(4, number=1))
    ends = [end for _, end in entries_in(whole).values()]
    file = put(tmp_path) / name(1)
    for size in range(ends[1], len(whole.rstrip(b"\0") if zeros else whole)):
        left = whole[:size] + bytes(len(whole) - size if zeros else 0)
        file.write_bytes(left)
        kept = max(end for end in ends if left[:end] == whole[:end])
        with opened(tmp_path) as log:
            last = ends.index(kept) + 1
            assert values(log) == {position: position for position in range(1, last + 1)}
            assert log.recovery.torn_bytes == len(left) - kept
            assert (log.recovery.gaps, log.recovery.damaged) == ([], [])
            assert file.read_bytes() == whole[:kept]
            log.append([record(last + 1, 99.0)])
            assert values(log, last) == {last + 1: 99.0}


@pytest.mark.usefixtures("unsynced")
def test_a_file_that_ends_in_any_byte_of_its_header_is_begun_anew(tmp_path: Path) -> None:
    """It was only just being made, so it has nothing. Its number isn't used again: what a power loss brings back
    of it must not be taken for the next one."""
    before = segment(1, 1, entry(1), cursor(0), entry(2))
    path = put(tmp_path)
    for size in range(88):
        for each in path.iterdir():
            each.unlink()
        (path / name(1)).write_bytes(before)
        (path / name(2)).write_bytes(segment(2, 3)[:size])
        with opened(tmp_path) as log:
            assert (values(log), log.last) == ({1: 1.0, 2: 2.0}, 2)
            assert (log.recovery.torn_bytes, log.recovery.gaps, log.recovery.damaged) == (0, [], [])
            assert contents(path) == {name(1): before}
            log.bind(DATABASE)
            assert set(contents(path)) == {name(1), name(3)}


@pytest.mark.parametrize("size", [0, 50, 87])
def test_a_newest_header_that_ends_in_zeros_is_begun_anew(tmp_path: Path, size: int) -> None:
    """The file had its length and not all of its bytes when the power failed."""
    whole = segment(1, 1, entry(1))
    path = put(tmp_path, whole, segment(2, 2)[:size] + bytes(88 - size))
    with opened(tmp_path) as log:
        assert (values(log), log.recovery.gaps, log.recovery.damaged) == ({1: 1.0}, [], [])
        assert contents(path) == {name(1): whole}


def test_labels_and_requests_come_back_without_each_other(tmp_path: Path) -> None:
    """Most requests have no name, and many metrics no labels."""
    plain = MetricBatch.of_row(Row(0, "s", "m", 1.0), {})
    labeled = MetricBatch.of_row(Row(0, "s", "m", 1.0, 7), {7: '{"zone":"a"}'})
    request = Placed(0, 1, Request("caller", "id-1", b"f" * 16, 1))
    given = [Record(1, labeled, 0), Record(2, plain, 0, (request,)), Record(3, plain, 0)]
    with opened(tmp_path) as log:
        log.append(given)
        found = log.read(0, MANY, MANY)
    assert [each.batch.label_sets for each in found] == [labeled.label_sets, {}, {}]
    assert [each.requests for each in found] == [(), (request,), ()]


def test_the_very_first_file_may_have_been_cut_off_in_its_header_too(tmp_path: Path) -> None:
    """Then nothing was ever put in, and it is a new journal."""
    path = put(tmp_path, segment(1, 1)[:50])
    with opened(tmp_path) as log:
        assert log.id != JOURNAL
        assert (log.first, log.last) == (1, 0)
        assert set(contents(path)) == {name(2)}


def test_a_frame_that_stands_there_twice_is_cut_off(tmp_path: Path) -> None:
    """A disk may show an older block again. Only the first with its position is an entry."""
    sound = segment(1, 1, entry(1), cursor(0), entry(2))
    path = put(tmp_path, sound + entry(2))
    with opened(tmp_path) as log:
        assert log.recovery.torn_bytes == len(entry(2))
        assert values(log) == {1: 1.0, 2: 2.0}
        assert contents(path) == {name(1): sound}


@pytest.mark.parametrize("again", [1, 2], ids=["an earlier one", "the same"])
def test_a_frame_that_stands_there_twice_before_others_is_damage(tmp_path: Path, again: int) -> None:
    """It took the place of something, so the file is kept; but no entry is lost, and none is read twice."""
    path = put(tmp_path, segment(1, 1, entry(1), cursor(0), entry(2), entry(again, 99.0), entry(3)))
    with opened(tmp_path) as log:
        assert (log.recovery.gaps, log.recovery.damaged) == ([], [f"{name(1)}.damaged"])
        assert values(log) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert set(contents(path)) == {f"{name(1)}.damaged"}


def found_in(files: list[bytes]) -> tuple[SegmentLog, Disk]:
    """The log that is made of these, and its disk: in memory, as there are thousands."""
    disk = Disk()
    directory = disk.boot()
    for sequence, data in enumerate(files, 1):
        file = directory.open_file(name(sequence), create=True)
        file.write(0, data)
        file.sync()
    directory.sync()
    return SegmentLog.open(directory, LIMITS, lambda: NOW_S), disk


def flips(data: bytes, begin: int, end: int) -> Iterator[bytes]:
    """The same with any one bit of those bytes the other way round."""
    for offset in range(begin, end):
        for bit in range(8):
            yield data[:offset] + bytes((data[offset] ^ 1 << bit,)) + data[offset + 1 :]


def test_any_flipped_bit_of_an_entry_loses_that_entry_and_no_other() -> None:
    """The file is set aside as it is, for whoever may rescue something, and the next entry goes to a new one."""
    whole = segment(1, 1, entry(1), cursor(0), entry(2), entry(3))
    for flipped in flips(whole, *entries_in(whole)[2]):
        log, disk = found_in([flipped])
        assert log.recovery.gaps == [Gap(2, 2, name(1))]
        assert log.recovery.damaged == [f"{name(1)}.damaged"]
        assert (log.recovery.torn_bytes, log.last) == (0, 3)
        assert values(log) == {1: 1.0, 3: 3.0}
        log.append([record(4)])
        assert values(log) == {1: 1.0, 3: 3.0, 4: 4.0}
        assert set(disk.names) == {f"{name(1)}.damaged", name(2)}
        assert disk.names[f"{name(1)}.damaged"].cached == flipped


def test_any_flipped_bit_of_an_earlier_file_loses_one_entry_too() -> None:
    """Nobody writes to it any more, and where it ends is known from the next one's header."""
    middle = segment(2, 2, entry(2), entry(3))
    begin, end = entries_in(middle)[3]
    for flipped in flips(middle, begin, end):
        log, disk = found_in([segment(1, 1, entry(1)), flipped, segment(3, 4, entry(4), cursor(0))])
        assert log.recovery.gaps == [Gap(3, 3, name(2))]
        assert log.recovery.damaged == [f"{name(2)}.damaged"]
        assert values(log) == {1: 1.0, 2: 2.0, 4: 4.0}
        assert disk.names[f"{name(2)}.damaged"].cached == flipped


def test_any_flipped_bit_of_a_header_loses_nothing() -> None:
    """Whose journal it is says the cursor's frame, where it begins its first entry; but it is damage."""
    whole = segment(1, 1, entry(1), cursor(0), entry(2))
    for flipped in flips(whole, 0, 88):
        log, disk = found_in([flipped])
        assert (log.id, log.last, log.recovery.gaps) == (JOURNAL, 2, [])
        assert values(log) == {1: 1.0, 2: 2.0}
        assert log.recovery.damaged == [f"{name(1)}.damaged"]
        assert disk.names[f"{name(1)}.damaged"].cached == flipped


def test_any_flipped_bit_of_a_cursor_loses_no_entry() -> None:
    """It only costs time: the database knows better where it stands."""
    whole = segment(1, 1, entry(1), cursor(1), entry(2))
    begin, end = entries_in(whole)[1][1], entries_in(whole)[2][0]
    for flipped in flips(whole, begin, end):
        log, _ = found_in([flipped])
        assert (log.committed_hint, log.recovery.gaps) == (0, [])
        assert values(log) == {1: 1.0, 2: 2.0}
        assert log.recovery.damaged == [f"{name(1)}.damaged"]


def test_what_lies_in_damaged_bytes_is_no_frame_only_because_it_looks_like_one(tmp_path: Path) -> None:
    """A caller chooses the values, and might choose those that are a frame's bytes. Without the journal's id its
    checksums are wrong, so it isn't found when the entry around it is damaged."""
    other = UUID(int=1)
    forged = encode_entry(seed(other), 50, record(50).batch, 0, number=0)
    doubles = struct.unpack(f"<{len(forged) // 8}d", forged)
    carrier = MetricBatch.of_rows([Row(0, "s", "m", each) for each in doubles], {})
    around = encode_entry(seed(JOURNAL), 2, carrier, 0, number=0)
    assert around.find(forged) % 8 == 0, "it stands where the search looks"
    assert decode_head(seed(other), around, around.find(forged)) is not None, "and is whole"
    broken = bytes((around[0] ^ 1,)) + around[1:]
    put(tmp_path, segment(1, 1, entry(1), cursor(0), broken, entry(3)))
    with opened(tmp_path) as log:
        assert log.recovery.gaps == [Gap(2, 2, name(1))]
        assert values(log) == {1: 1.0, 3: 3.0}
