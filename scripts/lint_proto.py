"""Runs `buf lint` over proto/, and `buf breaking` against a git revision, without any network.

buf would fetch google/api from its registry; this hands it the files of the googleapis-common-protos wheel.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from google.api import annotations_pb2

ROOT = Path(__file__).resolve().parent.parent
# The three rules that would give StreamMetrics messages of its own beside LogMetrics' equal ones.
EXCEPT = ["RPC_REQUEST_RESPONSE_UNIQUE", "RPC_REQUEST_STANDARD_NAME", "RPC_RESPONSE_STANDARD_NAME"]


def workspace(folder: Path, proto: Path) -> Path:
    """A buf workspace in `folder` of the files below `proto` and of google/api's; only ours are checked."""
    shutil.copytree(proto, folder / "proto")
    for name in ("annotations", "http"):
        source = Path(annotations_pb2.__file__).with_name(f"{name}.proto")
        target = folder / "googleapis" / "google" / "api" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    config = {
        "version": "v2",
        "modules": [
            {"path": "proto"},
            {
                "path": "googleapis",
                "lint": {"ignore": ["googleapis"]},
                "breaking": {"ignore": ["googleapis"]},
            },
        ],
        "lint": {"use": ["STANDARD"], "except": EXCEPT},
        "breaking": {"use": ["FILE"]},
    }
    (folder / "buf.yaml").write_text(json.dumps(config))
    return folder


def buf(*arguments: str) -> int:
    """Runs buf; returns its exit code."""
    program = Path(sysconfig.get_path("scripts")) / "buf"
    return subprocess.run([str(program), *arguments], check=False).returncode


def proto_at(revision: str, folder: Path) -> Path:
    """proto/ as it was at that revision."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, "proto"],  # noqa: S607 - git is wherever it is
        check=True,
        stdout=subprocess.PIPE,
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder / "proto"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--against", metavar="REVISION", help="also report what breaks clients of this revision"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new = workspace(folder / "new", ROOT / "proto")
        failed = buf("lint", str(new)) or buf("format", str(new), "--diff", "--exit-code")
        if arguments.against:
            old = workspace(folder / "old", proto_at(arguments.against, folder / "old-proto"))
            failed = buf("breaking", str(new), "--against", str(old)) or failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
