"""An append whose sync somebody else makes: when there is no more to do than to write, and what becomes of it."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from ingestor.journal import frames
from ingestor.journal.limits import JournalFull, LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.records import Begun, Record
from tests.journal.forgetful_disk import UNBOUNDED_BYTES, Disk, Fault
from tests.journal.segment_files import cursor, entry, name, record, values

FRAME_BYTES, CURSOR_BYTES = len(entry(1)), len(cursor(1))
AMPLE = LogLimits(bytes_max=64 * 1024**2, ample_bytes=0)


@pytest.fixture
def disk() -> Disk:
    """One that fails when it is told to."""
    return Disk()


def open_log(disk: Disk, limits: LogLimits = AMPLE, now_s: list[float] | None = None) -> SegmentLog:
    """A log with an entry, which has seen how much room there is."""
    clock = now_s or [1_000.0]
    log = SegmentLog.open(disk.boot(), limits, lambda: clock[0])
    log.append([record(log.last + 1)])
    log.room_bytes()
    return log


def begun(log: SegmentLog, *records: Record) -> Begun:
    """Insists on it."""
    found = log.begin(records or [record(log.last + 1)])
    assert found is not None
    return found


def test_it_is_there_once_it_was_synced_and_finished(disk: Disk) -> None:
    """Before that it is not read; and it is as if it had been appended."""
    log = open_log(disk)
    before = log.size_bytes
    append = begun(log, record(2), record(3))
    assert (values(log), log.last) == ({1: 1.0}, 1)
    append.file.sync()
    log.finish(append)
    assert (values(log), log.last) == ({1: 1.0, 2: 2.0, 3: 3.0}, 3)
    assert log.size_bytes == before + 2 * FRAME_BYTES
    disk.lose_power()
    assert values(SegmentLog.open(disk.boot(), AMPLE)) == {1: 1.0, 2: 2.0, 3: 3.0}


def test_nothing_but_a_write_is_done_for_it(disk: Disk) -> None:
    """What takes longer is not for who can't wait."""
    log = open_log(disk)
    disk.calls.clear()
    begun(log)
    assert disk.calls == ["write"]


def test_what_is_begun_takes_room_at_once(disk: Disk) -> None:
    """Its bytes are on the disk, whatever becomes of them."""
    log = open_log(disk)
    before = log.size_bytes
    begun(log)
    assert log.size_bytes == before + FRAME_BYTES


def test_a_cursor_comes_with_it_when_it_is_time_for_one(disk: Disk) -> None:
    """As with any append."""
    now_s = [1_000.0]
    log = open_log(disk, now_s=now_s)
    now_s[0] += 1.0
    for cursor_bytes in (CURSOR_BYTES, 0):
        append = begun(log)
        assert append.cursor_bytes == cursor_bytes
        append.file.sync()
        log.finish(append)
        assert log.read(log.last - 1, 1, 1)[0].position == log.last


def test_who_failed_to_sync_it_appends_it_into_a_new_file(disk: Disk) -> None:
    """A file whose sync failed is not written to again; nor is one whose sync nobody has heard of."""
    for fails in (True, False):
        log = open_log(disk)
        first = log.last
        append = begun(log)
        if fails:
            disk.fail([Fault("sync", 0, errno.EIO)])
            with pytest.raises(OSError, match="Input/output error"):
                append.file.sync()
            disk.fail(())
        assert log.begin([record(first + 1)]) is None
        files = len(disk.names)
        log.append([record(first + 1)])
        assert (len(disk.names), log.last) == (files + 1, first + 1)
        log.room_bytes()
        append = begun(log)
        append.file.sync()
        log.finish(append)
        disk.lose_power()
        found = values(SegmentLog.open(disk.boot(), AMPLE))
        assert list(found) == list(range(1, first + 3))


def test_who_failed_to_write_it_appends_it_where_it_was(disk: Disk) -> None:
    """What came of it is cut off first, and not by `begin`: that would be a sync more."""
    log = open_log(disk)
    disk.fail([Fault("write", 0, errno.EIO)])
    with pytest.raises(OSError, match="Input/output error"):
        log.begin([record(2)])
    disk.fail(())
    disk.calls.clear()
    assert log.begin([record(2)]) is None
    assert disk.calls == []
    log.append([record(2)])
    assert (values(log), list(disk.names)) == ({1: 1.0, 2: 2.0}, [name(1)])


def test_what_could_not_be_synced_and_has_no_room_either_never_comes_back(disk: Disk) -> None:
    """Its sender is told that nothing was taken."""
    bound = replace(AMPLE, bytes_max=88 + CURSOR_BYTES + 2 * FRAME_BYTES, segment_bytes=1 << 20)
    log = open_log(disk, bound)
    append = begun(log)
    disk.fail([Fault("sync", 0, errno.EIO)])
    with pytest.raises(OSError, match="Input/output error"):
        append.file.sync()
    disk.fail(())
    with pytest.raises(JournalFull) as refused:
        log.append([record(2)])
    assert refused.value.certain
    log.close()
    assert values(SegmentLog.open(disk.boot(), bound)) == {1: 1.0}


def test_a_file_is_begun_by_an_append_alone(disk: Disk) -> None:
    """At the first entry, after a leap, and where the last file is full."""
    log = SegmentLog.open(disk.boot(), AMPLE)
    log.room_bytes()
    log.leap()
    assert log.begin([record(log.last + 1)]) is None
    log = open_log(Disk(), replace(AMPLE, segment_bytes=88 + CURSOR_BYTES + 2 * FRAME_BYTES))
    append = begun(log)
    append.file.sync()
    log.finish(append)
    assert log.begin([record(3)]) is None


def test_room_is_made_by_an_append_alone(disk: Disk) -> None:
    """To the byte of the journal's bound."""
    bound = replace(AMPLE, bytes_max=88 + CURSOR_BYTES + 2 * FRAME_BYTES, segment_bytes=1 << 20)
    begun(open_log(disk, bound))
    log = open_log(Disk(), replace(bound, bytes_max=bound.bytes_max - 1))
    assert log.begin([record(2)]) is None


def test_what_is_kept_although_it_is_committed_goes_before_a_begun_append(disk: Disk) -> None:
    """It counts as room, and is in the way still: an append removes it."""
    bound = LogLimits(2 * (88 + CURSOR_BYTES) + 3 * FRAME_BYTES - 1, 1, retention_s=60.0, ample_bytes=0)
    log = open_log(disk, bound)
    log.append([record(2)])
    log.committed(1)
    log = SegmentLog.open(disk.boot(), replace(bound, segment_bytes=1 << 20), lambda: 1_000.0)
    log.committed(1)
    assert log.room_bytes() > FRAME_BYTES
    assert log.begin([record(3)]) is None
    log.append([record(3)])
    assert list(values(log)) == [2, 3]
    log.room_bytes()
    begun(log)


def test_a_disk_with_little_room_is_looked_at_first(disk: Disk) -> None:
    """What others and we have written since is taken off; before the first look there is none."""
    log = SegmentLog.open(disk.boot(), replace(AMPLE, free_bytes_reserve=1_000, ample_bytes=500))
    log.append([record(1)])
    assert log.begin([record(2)]) is None
    disk.capacity_bytes = disk.used_bytes + 1_500 + 2 * FRAME_BYTES
    log.room_bytes()
    for _ in range(2):
        append = begun(log)
        append.file.sync()
        log.finish(append)
    assert log.begin([record(4)]) is None
    disk.capacity_bytes = UNBOUNDED_BYTES
    assert log.begin([record(4)]) is None
    log.room_bytes()
    begun(log)


def test_with_little_room_nothing_is_prepared_for_nothing(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default 256 MiB are little, on the disk as in the journal; what may go is not looked for here."""
    encoded: list[int] = []

    def encode(*_: object, **__: object) -> bytes:
        encoded.append(1)
        return b""

    monkeypatch.setattr(frames, "encode_entry", encode)
    mib = 1024**2
    for bytes_max, free_bytes, begins in (
        (300 * mib, 250 * mib, False),
        (300 * mib, 257 * mib, True),
        (250 * mib, 300 * mib, False),
        (257 * mib, 300 * mib, True),
    ):
        encoded.clear()
        disk = Disk()
        log = SegmentLog.open(disk.boot(), LogLimits(bytes_max))
        log.append([])
        disk.capacity_bytes = disk.used_bytes + free_bytes
        log.room_bytes()
        assert (log.begin([record(1)]) is not None) == bool(encoded) == begins


def test_the_file_that_is_written_to_is_never_due() -> None:
    """However long ago the database had all that was in it: more comes, and stays for its own time."""
    now_s = [1_000.0]
    disk = Disk()
    log = open_log(disk, replace(AMPLE, retention_s=5.0), now_s)
    log.committed(1)
    now_s[0] += 6.0
    append = begun(log)
    append.file.sync()
    log.finish(append)
    log.note_committed(2)
    log.skip_to(9)  # begins a file
    log.committed(9)
    assert list(values(log)) == [1, 2]
    now_s[0] += 5.0
    log.committed(9)
    assert values(log) == {}


def test_nor_is_it_after_a_restart_that_found_all_of_it_committed() -> None:
    """More comes into it: it would go as soon as it is full, and until then nothing could be begun."""
    now_s = [1_000.0]
    disk = Disk()
    limits = replace(AMPLE, retention_s=5.0)
    log = open_log(disk, limits, now_s)
    log.committed(1)
    log.close()
    log = SegmentLog.open(disk.boot(), limits, lambda: now_s[0])
    assert log.committed_hint == 1
    log.room_bytes()
    now_s[0] += 6.0
    append = begun(log)
    append.file.sync()
    log.finish(append)
    log.skip_to(9)  # begins a file
    log.committed(9)
    assert list(values(log)) == [1, 2]


def test_what_is_due_to_go_goes_first() -> None:
    """By an append, or by word of what is committed: to remove a file takes long."""
    now_s = [1_000.0]
    disk = Disk()
    log = open_log(disk, replace(AMPLE, retention_s=5.0, segment_bytes=1), now_s)
    log.append([record(2)])
    log = SegmentLog.open(disk.boot(), replace(AMPLE, retention_s=5.0), lambda: now_s[0])
    log.room_bytes()
    log.note_committed(1)
    append = begun(log)
    append.file.sync()
    log.finish(append)
    now_s[0] += 5.0
    files = set(disk.names)
    log.note_committed(2)
    assert set(disk.names) == files
    assert log.begin([record(4)]) is None
    log.committed(2)
    assert set(disk.names) == files - {name(1)}
    begun(log)
