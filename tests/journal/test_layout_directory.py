"""The log in its directory: who may use it, and how full it may get.

It takes a real directory to see what the operating system makes of permissions, locks and a full disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingestor.errors import JournalProblem
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.limits import AppendFailed, JournalFull, LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.records import Record
from ingestor.model import MetricBatch, Row
from tests.journal.segment_files import (
    contents,
    entry,
    name,
    opened,
    put,
    record,
    refusal,
    segment,
    values,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can mount file systems and chown")
HOLD = """
import sys
from pathlib import Path
from ingestor.errors import JournalProblem
from ingestor.journal.directory import DiskDirectory
DiskDirectory.open(Path(sys.argv[1])).lock()
print("locked", flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# Who may use it.


def test_a_second_process_is_told_who_the_first_is(tmp_path: Path) -> None:
    """Two writers would overwrite each other's entries. The lock goes with the process, however that ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert refusal(tmp_path) == (
            f"another ingestor (pid {holder.pid}) uses the journal in {tmp_path / 'journal'}:"
            " stop it, or set DATA_DIR to another directory"
        )
        assert contents(tmp_path / "journal") == {}
        holder.kill()
    with opened(tmp_path) as log:
        log.append([record(1)])


def test_a_journal_is_locked_as_long_as_it_is_open(tmp_path: Path) -> None:
    """Within one process as well; and who is refused doesn't take the lock with him."""
    with opened(tmp_path) as log:
        for _ in range(2):
            assert f"(pid {os.getpid()})" in refusal(tmp_path)
        log.append([record(1)])
    with opened(tmp_path) as log:
        assert values(log) == {1: 1.0}


def test_who_can_not_open_the_log_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Neither for what is in a file, nor for what the system says: once it is mended, it opens."""
    path = put(tmp_path, segment(1, 1, entry(1)))
    directory = DiskDirectory.open(tmp_path)
    try:
        for linked in (False, True):
            if linked:
                (path / name(2)).symlink_to(path)
            else:
                (path / name(2)).write_bytes(b"mine")
            with pytest.raises(JournalProblem, match="move it away|symbolic links"):
                SegmentLog.open(directory, LogLimits(1024**2))
            (path / name(2)).unlink()
            SegmentLog.open(directory, LogLimits(1024**2)).close()
    finally:
        directory.close()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """Metrics are nobody's business, whatever the umask is; nor may anybody put files there."""
    before = os.umask(0)
    try:
        with opened(tmp_path / "data") as log:
            log.append([record(1)])
    finally:
        os.umask(before)
    path = tmp_path / "data" / "journal"
    assert mode(path) == 0o700
    assert {each.name: mode(each) for each in path.iterdir()} == {"lock": 0o600, name(1): 0o600}


def test_a_directory_that_stood_open_is_closed(tmp_path: Path) -> None:
    """An operator's mkdir leaves it so. Who only looks changes nothing."""
    path = put(tmp_path, segment(1, 1, entry(1)))
    path.chmod(0o755)
    DiskDirectory.open(tmp_path, create=False).close()
    assert mode(path) == 0o755
    DiskDirectory.open(tmp_path).close()
    assert mode(path) == 0o700


def test_who_only_looks_makes_no_directory(tmp_path: Path) -> None:
    """It would look like a journal that is empty."""
    with pytest.raises(FileNotFoundError):
        DiskDirectory.open(tmp_path / "data", create=False)
    assert list(tmp_path.iterdir()) == []


@as_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """That user could put anything there."""
    path = put(tmp_path, segment(1, 1, entry(1)))
    os.chown(path, 12345, -1)
    assert refusal(tmp_path) == (
        f"the journal's directory {path} belongs to the user with the number 12345, and the ingestor runs as 0:"
        " run it as that user, or chown the directory"
    )


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A link could lead anywhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")
    says = f"the journal's directory {tmp_path / 'journal'} can't be used: not a directory (see DATA_DIR)"
    assert refusal(tmp_path) == says
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "journal").unlink()
    (tmp_path / "journal").write_bytes(b"")
    assert refusal(tmp_path) == says


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of what is synced, as it is."""
    paths: list[str] = []

    def watch(call: str) -> None:
        real: Callable[[int], None] = getattr(os, call)

        def watched(fd: int) -> None:
            paths.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
            real(fd)

        monkeypatch.setattr(os, call, watched)

    watch("fsync")
    watch("fdatasync")
    return paths


def test_what_is_said_to_be_on_the_disk_was_synced(tmp_path: Path, synced: list[str]) -> None:
    """By the operating system: each append, each file that is begun with its name, each removal, and the
    directories themselves."""
    above = tmp_path / "data"
    journal = above / "journal"
    with opened(above, LogLimits(1024**2, segment_bytes=1)) as log:
        assert synced == [str(tmp_path), str(above), str(journal / name(1)), str(journal)]
        synced.clear()
        log.append([record(1)])
        assert synced == [str(journal / name(1))]
        synced.clear()
        log.append([record(2)])
        assert synced == [str(journal / name(2)), str(journal), str(journal / name(2))]
        synced.clear()
        log.committed(1)
        assert synced == [str(journal)]


def test_a_write_that_takes_some_bytes_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a read that gives some: a signal may cut either short."""
    real_write, real_read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real_write(fd, data[:7], offset))
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: real_read(fd, min(size, 7), offset))
    directory = DiskDirectory.open(tmp_path)
    file = directory.open_file("000000000001.segment", create=True)
    try:
        file.write(3, b"0123456789abcdefghij")
        assert file.read(0, 100) == bytes(3) + b"0123456789abcdefghij"
        assert file.read(5, 16) == b"23456789abcdefgh"
        assert file.read(5, 7) == b"2345678"
        assert file.read(23, 5) == b""
    finally:
        file.close()
        directory.close()


def test_a_file_that_goes_while_they_are_listed_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody looks at what a server uses."""
    path = put(tmp_path, segment(1, 1, entry(1)), segment(2, 2, entry(2)), segment(3, 3, entry(3)))
    real = os.scandir

    @contextmanager
    def scandir(fd: int) -> Iterator[list[os.DirEntry[str]]]:
        with real(fd) as entries:
            found = list(entries)
            (path / name(2)).unlink()
            yield found

    directory = DiskDirectory.open(tmp_path)
    with monkeypatch.context() as racing:
        racing.setattr(os, "scandir", scandir)
        assert set(directory.sizes()) == {name(1), name(3)}
    directory.close()


def test_a_directory_that_is_refused_is_let_go_of(tmp_path: Path) -> None:
    """Whoever tries again and again must not run out of file descriptors."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    (tmp_path / "journal").symlink_to(tmp_path)
    with opened(tmp_path / "other"):
        for _ in range(5):
            refusal(tmp_path)
            refusal(tmp_path / "other")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_start_keeps_the_last_file_open_and_no_other(tmp_path: Path) -> None:
    """There may be a thousand of them."""
    headless = bytearray(segment(1, 1, entry(1)))
    headless[50] ^= 1
    put(tmp_path, bytes(headless), segment(2, 2, entry(2)), segment(3, 3, entry(3)))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with opened(tmp_path) as log:
        opened_files = len(list(Path("/proc/self/fd").iterdir())) - before
        assert opened_files <= 3, "the directory, the lock and the last file"
        assert list(values(log)) == [1, 2, 3]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_directories_above_it_are_closed_to_others_but_for_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as root, PostgreSQL is another user and lives beside it: it must pass, and no more."""
    before = os.umask(0o077)
    try:
        DiskDirectory.open(tmp_path / "a" / "b").close()
        monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "c").stat().st_uid or 1)
        (tmp_path / "c").mkdir()
        with pytest.raises(JournalProblem):
            DiskDirectory.open(tmp_path / "c" / "d")
    finally:
        os.umask(before)
    passing = 0o755 if (tmp_path / "a").stat().st_uid == 0 else 0o700
    assert [mode(tmp_path / each) for each in ("a", "a/b", "a/b/journal")] == [passing, passing, 0o700]
    assert mode(tmp_path / "c" / "d") == 0o700


def test_a_directory_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    """With its name, and which setting names it; a file in the way as well."""
    for place in (Path("/proc/nowhere"), tmp_path / "file" / "data"):
        (tmp_path / "file").write_bytes(b"")
        said = refusal(place)
        assert said.startswith(f"the journal's directory {place / 'journal'} can't be ")


# How full it may get.


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def large(position: int) -> Record:
    """Some 10 KB."""
    return Record(position, MetricBatch.of_rows([Row(0, "s", "m", float(position))] * 250, {}), 0)


def fill(log: SegmentLog, make: Callable[[int], Record]) -> AppendFailed:
    """Appends until that fails; says how."""
    for _ in range(1_000):
        try:
            log.append([make(log.last + 1)])
        except AppendFailed as failed:
            return failed
    pytest.fail("it never got full")


@as_root
def test_a_full_disk_refuses_and_keeps_what_it_has(small: Path) -> None:
    """And goes on when somebody has made room. What was refused leaves nothing behind, so that its position is
    given out again."""
    (small / "filler").write_bytes(bytes(64 * 1024))
    with opened(small) as log:
        for _ in range(2):
            failed = fill(log, large)
            assert isinstance(failed, JournalFull)
            assert failed.certain
            assert str(failed).endswith("can't be written: no space left on device")
            last = log.last
            assert last > 10
            assert list(values(log)) == list(range(1, last + 1))
        (small / "filler").unlink()
        log.append([large(last + 1)])
        assert log.last == last + 1
    with opened(small) as log:
        assert values(log) == {position: position for position in range(1, last + 2)}
        assert (log.recovery.torn_bytes, log.recovery.gaps, log.recovery.damaged) == (0, [], [])


@as_root
def test_on_a_full_disk_what_is_committed_makes_room_early(small: Path) -> None:
    """Retention is a favor. New entries come first, but only where whole files are committed."""
    with opened(small, LogLimits(bytes_max=1024**2, segment_bytes=32 * 1024, retention_s=1e9)) as log:
        assert isinstance(fill(log, large), JournalFull)
        full = log.last
        log.committed(5)
        assert log.first == 1
        log.append([large(full + 1)])
        assert 1 < log.first <= 6
        assert list(values(log, 5)) == list(range(6, full + 2))


@as_root
def test_a_file_that_could_not_be_begun_is_not_left_behind(small: Path) -> None:
    """Its name would be one more to wonder about at the next start."""
    with opened(small, LogLimits(bytes_max=1024**2, segment_bytes=1)) as log:
        log.append([record(1)])
        with pytest.raises(OSError, match="No space"), (small / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        for _ in range(10):
            with pytest.raises(JournalFull):
                log.append([record(2)])
            assert set(contents(small / "journal")) == {name(1)}
        (small / "filler").unlink()
        log.append([record(2)])
        assert values(log) == {1: 1.0, 2: 2.0}


def test_the_bound_refuses_what_is_not_committed_and_drops_what_is(tmp_path: Path) -> None:
    """Oldest first, and no more than the new entry takes."""
    frame = len(entry(1))
    bound = 4 * (frame + 88) + 200
    with opened(tmp_path, LogLimits(bytes_max=bound, segment_bytes=1, retention_s=1e9)) as log:
        failed = fill(log, record)
        assert isinstance(failed, JournalFull)
        assert f"JOURNAL_BYTES_MAX is {bound}" in str(failed)
        full = log.last
        assert full >= 3
        log.committed(2)
        assert log.first == 1
        log.append([record(full + 1)])
        assert log.first == 2
        assert log.size_bytes <= bound + 88
