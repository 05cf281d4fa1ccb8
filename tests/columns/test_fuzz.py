"""No bytes kill the process, hang it, or fail in a way that is not a refusal."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# `make fuzz` sets both; the seed is printed either way, so that a failure can be had again.
CASES = int(os.environ.get("FUZZ_CASES", "4000"))
SEED = int(os.environ.get("FUZZ_SEED", str(random.randrange(10**9))))


@pytest.mark.timeout(max(120, CASES // 100))
def test_hostile_bytes(tmp_path: Path) -> None:
    """In a child process, because a native decoder's crash would take this one along."""
    last = tmp_path / "last_case"
    command = [sys.executable, "-m", "tests.columns.fuzz", str(SEED), str(CASES), str(last)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"FUZZ_SEED={SEED}\n{done.stderr[-2000:]}\nlast case: {last.read_bytes()[:400].hex()}"
    )
    print(done.stdout)
