"""What is in deploy/, as far as it can be looked at without a builder of containers or a running systemd."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ingestor.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile's, with their words."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    logical = "\n".join(lines).replace("\\\n", " ").splitlines()
    parsed = [line.partition(" ") for line in logical if line.strip()]
    return [(name, shlex.split(rest)) for name, _, rest in parsed]


def words_of(name: str) -> list[list[str]]:
    return [words for each, words in instructions() if each == name]


def pins(path: Path) -> dict[str, str]:
    """Name to version of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", path.read_text(), re.MULTILINE))


def sent() -> list[str]:
    """What .dockerignore lets through, which begins by refusing everything."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    return [line[1:] for line in lines if line.startswith("!")]


def test_what_the_image_copies_is_there_and_is_sent() -> None:
    """From the checkout or from the stage before; and nothing is sent that isn't copied."""
    copied = [
        word for words in words_of("COPY") if not words[0].startswith("--from=build") for word in words[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
    assert sorted(copied) == sorted(sent())


def test_the_image_is_no_root_and_of_a_named_release() -> None:
    """A number, which orchestrators can tell from root; a base with a tag that says which Python."""
    assert words_of("USER") == [["65532:65532"]]
    for base in words_of("FROM"):
        assert re.fullmatch(r"python:3\.\d+-slim", base[0]), base
    assert words_of("ENTRYPOINT") == [["[/opt/ingestor/bin/ingestor]"]]
    assert words_of("STOPSIGNAL") == [["SIGTERM"]]
    order = [name for name, _ in instructions()]
    assert "RUN" not in order[order.index("USER") :]


def test_the_image_sets_what_the_server_knows() -> None:
    """No misspelt setting; and it stores its data where the volume is."""
    given = dict(word.split("=", 1) for words in words_of("ENV") for word in words)
    ours = {name.removeprefix("INGESTOR_").lower() for name in given if name.startswith("INGESTOR_")}
    assert ours <= set(Settings.model_fields)
    assert words_of("VOLUME") == [[given["INGESTOR_DATA_DIR"]]]


def test_the_image_installs_what_is_tested_and_no_more() -> None:
    """The pins of deploy/ are those of requirements.txt, each with hashes, without what is for developers."""
    tested = pins(ROOT / "requirements.txt")
    served = pins(DEPLOY / "requirements.txt")
    assert len(served) > 30
    for pinned in (served, pins(DEPLOY / "requirements-build.txt")):
        assert pinned.items() <= tested.items()
    assert not {"pytest", "mypy", "grpcio", "trustme", "hatchling"} & set(served)
    for words in words_of("RUN"):
        text = " ".join(words)
        assert text.count("pip install") == text.count("--require-hashes") + text.count("--no-index")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt", "requirements-audit.txt"])
def test_locks_name_no_index(name: str) -> None:
    """Where the packages come from is for who installs them to say."""
    text = (DEPLOY / name).read_text()
    assert "://" not in text
    assert all(
        "--hash=sha256:" in part for part in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE) if "==" in part
    )


def test_the_environment_file_names_settings() -> None:
    """Commented out or not."""
    names = re.findall(r"^#?(INGESTOR_\w+)=", (DEPLOY / "ingestor.env").read_text(), re.MULTILINE)
    assert names
    assert {name.removeprefix("INGESTOR_").lower() for name in names} <= set(Settings.model_fields)


def test_the_unit(tmp_path: Path) -> None:
    """systemd knows every directive, and finds little that the service could do beside its work."""
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd-analyze is there")
    unit = tmp_path / "ingestor.service"
    unit.write_text(
        (DEPLOY / "ingestor.service").read_text().replace("/opt/ingestor/bin/ingestor", "/bin/true")
    )
    verified = subprocess.run(
        [analyze, "verify", unit], capture_output=True, text=True, check=False, timeout=30
    )
    assert "ingestor.service" not in verified.stdout + verified.stderr
    command = [analyze, "security", "--offline=true", "--no-pager", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if (found := re.search(r"exposure level for \S+: (\d+\.\d+)", judged.stdout)) is None:
        pytest.skip("this systemd-analyze judges no unit that isn't installed")
    assert float(found[1]) < 2.0


def test_the_roles_script_is_of_the_tables_that_there_are() -> None:
    """Each table that migrations make is named in it, so that a new one is not forgotten."""
    made = "".join(path.read_text() for path in (ROOT / "ingestor/storage/migrations").glob("*.sql"))
    script = (DEPLOY / "roles.sql").read_text()
    for name in re.findall(r"^CREATE (?:TABLE|VIEW) (\w+)", made, re.MULTILINE):
        assert f"'{name}'" in script, name
