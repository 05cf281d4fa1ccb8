"""The file of keys, and how a change of it comes into force."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from ingestor.access import Gate, Key, Keys, KeysFile, KeysProblem, Watch
from tests.access.kit import NEEDS, make


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "data" / "keys")


@pytest.fixture
def errors() -> Iterator[list[str]]:
    found: list[str] = []
    ours = logger.add(found.append, level="ERROR", format="{message}")
    yield found
    logger.remove(ours)


def known(gate: Gate) -> list[Key] | None:
    return None if gate.keys is None else list(gate.keys.all)


def broken(watch: Watch) -> bool:
    return watch.problem is not None


def names_beside(file: KeysFile) -> list[str]:
    return sorted(path.name for path in file.path.parent.iterdir())


def test_keys_come_back_as_they_were_written(file: KeysFile) -> None:
    """Privately, without secrets, in one step; none without a file."""
    assert file.read() is None
    key, text = make("write:ü.", requests_per_s=2.5, certificate_names=("a",))
    other, _ = make()
    file.change(lambda keys: [*keys.all, key])
    file.change(lambda keys: [*keys.all, other])
    found = file.read()
    assert found is not None
    assert list(found.all) == [key, other]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert text[-43:] not in file.path.read_text()
    assert names_beside(file) == ["keys"]


def test_a_change_that_fails_changes_nothing(file: KeysFile) -> None:
    """The old keys stay, and nothing is left beside them."""
    key, _ = make()
    file.change(lambda _: [key])
    before = file.path.stat()

    def fail(_: Keys) -> list[object]:
        msg = "no"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError):
        file.change(fail)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two keys"):
        file.change(lambda keys: [*keys.all, key])
    assert (file.path.stat(), names_beside(file)) == (before, ["keys"])


def test_two_changes_at_once_are_one_too_many(file: KeysFile) -> None:
    """The second is told so, instead of undoing the first."""
    file.change(lambda _: [make()[0]])
    fd = os.open(file.path.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(KeysProblem, match="try again"):
        file.change(lambda keys: keys.all)
    os.close(fd)


def test_a_file_that_others_could_have_written_is_refused(file: KeysFile) -> None:
    """By its mode; a link is followed to be read, as Kubernetes mounts secrets, and never written through."""
    file.change(lambda _: [make()[0]])
    file.path.chmod(0o620)
    with pytest.raises(KeysProblem, match="chmod go-w"):
        file.read()
    file.path.chmod(0o444)
    link = KeysFile(file.path.with_name("link"))
    link.path.symlink_to(file.path)
    assert link.read() is not None
    with pytest.raises(KeysProblem, match="symbolic link"):
        link.change(lambda keys: keys.all)
    os.mkfifo(file.path.with_name("pipe"))
    with pytest.raises(KeysProblem, match="no plain file"):
        KeysFile(file.path.with_name("pipe")).read()


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"sha256": "xyz"}, "line 1: sha256"),
        ({"scopes": ["fly"]}, "line 1: scopes"),
        ({"expires": "2026-01-01T00:00:00"}, "line 1: expires"),
        ({"requests_per_s": 0}, "line 1: requests_per_s"),
        ({"secret": "hunter2"}, "line 1: secret"),
    ],
)
def test_what_is_wrong_is_named_and_not_shown(file: KeysFile, change: dict[str, object], hint: str) -> None:
    """Line and field; nothing of the content, which may be a secret in the wrong place."""
    file.path.parent.mkdir()
    file.path.write_text(json.dumps({**json.loads(make()[0].model_dump_json()), **change}) + "\n")
    file.path.chmod(0o600)
    with pytest.raises(KeysProblem) as caught:
        file.read()
    assert hint in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_broken_file_leaves_the_old_keys_in_force(file: KeysFile, errors: list[str]) -> None:
    """Said once, and again when it is wrong in another way; the mended file counts."""
    old, _ = make()
    file.change(lambda _: [old])
    gate = Gate(NEEDS)
    watch = Watch(file, gate)
    watch.begin()
    version = gate.version
    await watch.look()
    assert gate.version == version
    good = file.path.read_bytes()
    for content, told in ((b"{", 1), (b"{", 1), (b"", 2), (None, 2)):
        if content is None:
            file.path.unlink()
        else:
            file.path.write_bytes(content)
        await watch.look()
        assert (broken(watch), len(errors), known(gate)) == (True, told, [old])
    new, _ = make()
    file.path.write_bytes(good + new.model_dump_json().encode())
    file.path.chmod(0o600)
    await watch.look()
    assert (broken(watch), known(gate)) == (False, [old, new])
    # Also when it is as it was before.
    file.path.chmod(0o622)
    await watch.look()
    assert broken(watch)
    file.path.chmod(0o600)
    await watch.look()
    assert not broken(watch)


async def test_the_watch_outlives_whatever_lies_under_the_name(
    file: KeysFile, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory, a file where its directory was, an error that nobody thought of: the known keys stay in
    force, and the file counts again when it is back."""
    old, new = make()[0], make()[0]
    file.change(lambda _: [old])
    gate = Gate(NEEDS)
    watch = Watch(file, gate)
    watch.begin()
    place, aside = file.path.parent, file.path.parent.with_name("aside")
    place.rename(aside)
    file.path.mkdir(parents=True)
    with pytest.raises(KeysProblem, match="no plain file"):
        file.read()
    await watch.look()
    assert (broken(watch), len(errors), known(gate)) == (True, 1, [old])
    file.path.rmdir()
    place.rmdir()
    place.touch()
    await watch.look()
    assert (broken(watch), len(errors), known(gate)) == (True, 2, [old])
    place.unlink()
    aside.rename(place)

    def fail(path: Path) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("ingestor.file_watch._stamp", fail)
        await watch.look()
        assert (broken(watch), len(errors), known(gate)) == (True, 3, [old])
    await watch.look()
    assert not broken(watch)
    file.change(lambda keys: [*keys.all, new])
    await watch.look()
    assert (broken(watch), known(gate)) == (False, [old, new])


async def test_a_problem_of_a_file_that_goes_away_goes_with_it(file: KeysFile) -> None:
    """Without keys from the beginning, none are needed again."""
    watch = Watch(file, Gate(NEEDS))
    watch.begin()
    file.path.mkdir(parents=True)
    await watch.look()
    assert broken(watch)
    file.path.rmdir()
    await watch.look()
    assert not broken(watch)


def test_a_file_whose_directory_goes_is_a_problem(file: KeysFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening it and looking whom the directory belongs to, which only root looks at."""
    file.change(lambda _: [make()[0]])
    opened = os.open

    def move(path: Path, flags: int) -> int:
        fd = opened(path, flags)
        file.path.parent.rename(file.path.parent.with_name("aside"))
        return fd

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "open", move)
    with pytest.raises(KeysProblem, match="no such file"):
        file.read()


async def test_the_first_key_closes_an_open_server(file: KeysFile) -> None:
    """No file and an empty one are open; what is revoked keeps it closed."""
    gate = Gate(NEEDS)
    watch = Watch(file, gate)
    watch.begin()
    await watch.look()
    file.path.parent.mkdir()
    file.path.touch(0o600)
    await watch.look()
    assert known(gate) is None
    assert not broken(watch)
    key, _ = make()
    file.change(lambda _: [key])
    await watch.look()
    assert gate.valid() == 1
    revoked = key.model_copy(update={"revoked": key.created})
    file.change(lambda _: [revoked])
    await watch.look()
    assert (known(gate), gate.valid()) == ([revoked], 0)
    again = Gate(NEEDS)
    Watch(file, again).begin()
    assert known(again) == [revoked]
