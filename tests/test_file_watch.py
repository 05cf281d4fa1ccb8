"""Files that change are used, and what goes wrong with them is told once and ends nothing."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, get_ident

import pytest
from loguru import logger

from ingestor import file_watch
from ingestor.errors import BadSetting
from ingestor.file_watch import FileWatch


@pytest.fixture
def errors() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(found.append, level="ERROR", format="{message}")
    yield found
    logger.remove(sink)


class Watched:
    """Two files, one of which has a word; "bad" can't be read, and what is `refused` not be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.used: list[str] = []
        self.refused = {"worse"}
        self.told: asyncio.Queue[str | None] = asyncio.Queue()
        self.reads = 0
        self.meanwhile: str | None = None
        self.watch = FileWatch(
            [path, path.with_name("another")],
            self.read,
            self.use,
            kept="the old one stays",
            told=lambda: self.told.put_nowait(self.watch.problem),
        )
        path.write_text("first")
        assert self.watch.begin() == "first"

    def read(self) -> str:
        self.reads += 1
        word = self.path.read_text()
        if self.meanwhile is not None:
            self.path.write_text(self.meanwhile)
            self.meanwhile = None
        if word == "bad":
            raise BadSetting(word)
        return word

    def use(self, word: str) -> None:
        if word in self.refused:
            raise BadSetting(word)
        self.used.append(word)

    async def looked(self) -> tuple[list[str], str | None, int]:
        """What was used so far after a look, what is wrong, and how often somebody was told."""
        await self.watch.look()
        return self.used, self.watch.problem, self.told.qsize()


async def test_what_has_changed_is_used_once(tmp_path: Path) -> None:
    """What has not is not even read; another of the files counts as well."""
    watched = Watched(tmp_path / "word")
    assert await watched.looked() == ([], None, 0)
    assert watched.reads == 1
    watched.path.write_text("second")
    for _ in range(2):
        assert await watched.looked() == (["second"], None, 1)
    watched.path.with_name("another").touch()
    assert await watched.looked() == (["second"] * 2, None, 2)


async def test_what_can_not_be_used_replaces_nothing(tmp_path: Path, errors: list[str]) -> None:
    """It is told once, and again when something else is wrong. It is over when it is mended, even if the file is as
    it was before."""
    watched = Watched(tmp_path / "word")
    for told, word in enumerate(("bad", "worse"), 1):
        watched.path.write_text(word)
        for _ in range(2):
            assert await watched.looked() == ([], word, told)
    assert errors == ["the old one stays: bad\n", "the old one stays: worse\n"]
    watched.path.unlink()
    assert "FileNotFoundError" in str((await watched.looked())[1])
    watched.path.write_text("worse")
    assert (await watched.looked())[1:] == ("worse", 4)
    watched.refused.clear()
    assert await watched.looked() == (["worse"], None, 5)


async def test_what_is_written_while_it_is_read_is_seen(tmp_path: Path) -> None:
    """By the next look."""
    watched = Watched(tmp_path / "word")
    watched.path.write_text("second")
    watched.meanwhile = "third"
    await watched.watch.look()
    assert (await watched.looked())[0] == ["second", "third"]


async def test_nothing_unforeseen_is_the_last_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as without a thread to look in."""
    watched = Watched(tmp_path / "word")
    keeping = asyncio.create_task(watched.watch.keep(0.01))
    async with asyncio.timeout(20):
        with monkeypatch.context() as broken:
            broken.setattr(file_watch, "_stamp", lambda _: 1 // 0)
            assert "ZeroDivisionError" in str(await watched.told.get())
        assert await watched.told.get() is None
    assert watched.used == ["first"]
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert watched.watch.problem is None


async def test_a_look_that_hangs_is_told(
    tmp_path: Path, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a file system whose server is gone; it is over when the look is."""
    watched = Watched(tmp_path / "word")
    goes_on = Event()

    def hang(path: Path) -> None:
        goes_on.wait(20)

    monkeypatch.setattr(file_watch, "_SLOW_S", 0.01)
    monkeypatch.setattr(file_watch, "_stamp", hang)
    looking = asyncio.create_task(watched.watch.look())
    async with asyncio.timeout(20):
        assert "that takes over 0.01 s" in str(await watched.told.get())
        assert not looking.done()
        goes_on.set()
        await looking
    assert watched.watch.problem is None
    assert len(errors) == 1


async def test_a_look_that_is_given_up_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an error that nobody hears of, which the event loop would tell as one of its own."""
    watched = Watched(tmp_path / "word")
    begun, goes_on = Event(), Event()
    threads = list[int]()
    unheard: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))

    def fail(path: Path) -> None:
        threads.append(get_ident())
        begun.set()
        goes_on.wait(20)
        raise ZeroDivisionError

    monkeypatch.setattr(file_watch, "_stamp", fail)
    looking = asyncio.create_task(watched.watch.look())
    await asyncio.to_thread(begun.wait, 20)
    looking.cancel()
    await asyncio.wait([looking])
    goes_on.set()
    while threads[0] in sys._current_frames():
        await asyncio.sleep(0.001)
    for _ in range(3):
        await asyncio.sleep(0)
    del looking
    gc.collect()
    await asyncio.sleep(0)
    assert unheard == []


async def test_a_folder_that_can_not_be_entered_is_no_file_that_is_missing(tmp_path: Path) -> None:
    """Who began without keys learns that there may be some."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "keys"
    watched = FileWatch([path], path.stat, lambda _: None, kept="none")
    with pytest.raises(FileNotFoundError):
        watched.begin()
    await watched.look()
    assert watched.problem is None
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").symlink_to("folder")  # to itself
    await watched.look()
    assert "Too many levels of symbolic links" in str(watched.problem)


async def test_who_listens_ends_nothing(
    tmp_path: Path, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found is used all the same, and what is wrong stays a problem."""
    watched = Watched(tmp_path / "word")

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(watched.watch, "_told", fail)
    watched.path.write_text("second")
    await watched.watch.look()
    watched.path.write_text("bad")
    await watched.watch.look()
    assert (watched.used, watched.watch.problem) == (["second"], "bad")
    assert len(errors) == 3


async def test_an_end_is_told(tmp_path: Path, errors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a problem as a broken file is one; being cancelled is none."""

    class Unforeseen(BaseException):
        pass

    def fail(path: Path) -> None:
        raise Unforeseen

    watched = Watched(tmp_path / "word")
    monkeypatch.setattr(file_watch, "_stamp", fail)
    with pytest.raises(Unforeseen):
        await watched.watch.keep(0.0)
    assert "not looked at any more" in str(watched.watch.problem)
    assert "not looked at any more" in errors[0]
