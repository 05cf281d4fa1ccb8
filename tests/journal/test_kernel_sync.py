"""fdatasync by the kernel's own threads: it ends, one at a time, and where the kernel has none nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from select import select
from typing import Any

import pytest

from ingestor.journal import kernel_sync as kernel_sync_module
from ingestor.journal.directory import DiskDirectory, DiskFile
from ingestor.journal.kernel_sync import KernelSync
from tests.journal.disk_kit import needs_kernel


@pytest.fixture
def file(tmp_path: Path) -> DiskFile:
    """One on a real disk, mostly, with something in it."""
    file = DiskDirectory.open(tmp_path).open_file("some", create=True)
    file.write(0, b"some")
    return file


def open_files() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
async def syncs() -> AsyncIterator[KernelSync]:
    """Insists on them."""
    opened = KernelSync.open()
    assert opened is not None
    yield opened
    opened.close()


@needs_kernel
async def test_a_sync_ends(syncs: KernelSync, file: DiskFile) -> None:
    """Again and again; and the event loop sleeps after it."""
    for _ in range(100):
        sync = syncs.begin(file)
        assert sync is not None
        await asyncio.wait_for(sync, 5)
        assert select([syncs._eventfd], [], [], 0) == ([], [], [])


@needs_kernel
async def test_one_at_a_time(syncs: KernelSync, file: DiskFile) -> None:
    """Also while nobody waits for the first any more: whose end it was could not be told."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    for gives_up in (False, True):
        sync = syncs.begin(file)
        assert sync is not None
        if gives_up:
            sync.cancel()
        assert syncs.begin(file) is None
        for _ in range(1_000):
            if (later := syncs.begin(file)) is not None:
                break
            await asyncio.sleep(0.001)
        assert later is not None
        await asyncio.wait_for(later, 5)
        assert sync.cancelled() == gives_up
    assert unhandled == []


@needs_kernel
async def test_what_the_kernel_does_not_take_is_not_begun(syncs: KernelSync, file: DiskFile) -> None:
    """A pipe has no disk. It is at no other then."""
    reads, writes = os.pipe()
    assert syncs.begin(DiskFile(writes)) is None
    os.close(reads)
    os.close(writes)
    sync = syncs.begin(file)
    assert sync is not None
    await asyncio.wait_for(sync, 5)


@needs_kernel
async def test_a_disk_that_fails_is_told(
    syncs: KernelSync, file: DiskFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system says it."""
    real = syncs._system

    def failing(number: int, *arguments: object) -> int:
        found = real(number, *arguments)
        syncs._told.result = -errno.ENOSPC
        return found

    monkeypatch.setattr(syncs, "_system", failing)
    sync = syncs.begin(file)
    assert sync is not None
    with pytest.raises(OSError, match="No space left") as failed:
        await asyncio.wait_for(sync, 5)
    assert failed.value.errno == errno.ENOSPC


@needs_kernel
async def test_closing_leaves_nothing_open(file: DiskFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is under way; and once is enough. What is under way is not waited for."""
    before = open_files()
    real = KernelSync._system
    calls: list[int] = []

    def counted(syncs: KernelSync, number: int, *arguments: object) -> int:
        calls.append(number)
        return real(syncs, number, *arguments)

    monkeypatch.setattr(KernelSync, "_system", counted)
    for under_way in (False, True):
        syncs = KernelSync.open()
        assert syncs is not None
        eventfd = syncs._eventfd
        assert not under_way or syncs.begin(file) is not None
        calls.clear()
        syncs.close()
        syncs.close()
        assert calls == ([] if under_way else [syncs._numbers.destroy])
        assert not asyncio.get_running_loop().remove_reader(eventfd)
    assert open_files() == before


async def test_there_is_none_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other machines, and where the kernel refuses, as it does in many a sandbox, or has no file to give; none
    stays open."""
    before = open_files()
    monkeypatch.setattr(platform, "machine", lambda: "sparc64")
    assert KernelSync.open() is None
    monkeypatch.setattr(platform, "machine", lambda: "mine")
    unknown = kernel_sync_module._Numbers(99_999, 99_999, 99_999, 99_999)
    monkeypatch.setitem(kernel_sync_module._NUMBERS, "mine", unknown)
    assert KernelSync.open() is None
    assert open_files() == before


@needs_kernel
async def test_where_no_file_can_be_opened_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other is asked for: there is a number of those, too, for the whole system."""
    asked: list[int] = []
    monkeypatch.setattr(KernelSync, "_system", lambda _, number, *__: asked.append(number))

    def refuse(*_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refuse)
    assert KernelSync.open() is None
    assert asked == []
