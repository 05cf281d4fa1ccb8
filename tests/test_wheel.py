"""The built wheel, as somebody installs it: in an empty virtual environment, away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path, timeout_s: float = 150) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    [built] = folder.glob("*.whl")
    return built


def test_it_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    """Both packages, descriptors, migrations and the page; no tests, no scripts."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "ingestor_api/descriptors.binpb" in names
    assert "ingestor/storage/migrations/0001_timescaledb.sql" in names
    static = (ROOT / "ingestor" / "page" / "static").iterdir()
    assert {f"ingestor/page/static/{file.name}" for file in static} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"ingestor", "ingestor_api"}


@pytest.mark.timeout(300)
def test_it_installs_and_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With the pinned versions of its own requirements alone: the demo brings its database, serves and stores."""
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.removesuffix(" \\") for line in lines]  # with their markers: some are for some Pythons
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(pin for pin in pins if "==" in pin and not pin.startswith((" ", "#"))))
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        str(constraints),
        str(wheel),
    ]
    installed = subprocess.run(pip, cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    if "No matching distribution" in installed.stderr or "Could not fetch" in installed.stderr:
        pytest.skip("pip reaches no package index")
    assert installed.returncode == 0, installed.stderr
    command = str(tmp_path / "venv" / "bin" / "ingestor")
    assert run(command, "--version", cwd=tmp_path).startswith("ingestor ")
    out = run(command, "demo", "--metrics", "1000", cwd=tmp_path)
    assert "every accepted metric is stored exactly once" in " ".join(out.split())
