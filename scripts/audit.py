"""Asks PyPI's advisories about every pinned requirement: `make audit`.

It never says that all is well when it could not ask. Exit codes: 0 nothing is known, 1 something is, 3 not asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "deploy/requirements.txt", "deploy/requirements-build.txt")
FOUND, NOT_ASKED = 1, 3
_TIMEOUT_S = 600


def main(arguments: list[str]) -> int:
    """Audits each lock file; further arguments are pip-audit's."""
    files = [word for name in LOCKS for word in ("--requirement", str(ROOT / name))]
    # As they are pinned: what is there for another platform or Python is asked about, too.
    command = [
        "pip_audit",
        *files,
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        *arguments,
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return _not_asked(f"no answer within {_TIMEOUT_S} s")
    except ValueError:
        return _not_asked((done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1])
    return judge(report["dependencies"])


def judge(dependencies: list[dict[str, Any]]) -> int:
    """Tells what was found, and returns the exit code."""
    skipped = [each for each in dependencies if "skip_reason" in each]
    found = [(each, flaw) for each in dependencies for flaw in each.get("vulns", ())]
    for package, flaw in found:
        mended = ", ".join(flaw["fix_versions"]) or "no release"
        print(f"{package['name']} {package['version']}: {flaw['id']} (mended in {mended})")
    if skipped:
        return FOUND if found else _not_asked(f"{len(skipped)} packages: {skipped[0]['skip_reason']}")
    print(f"{len(dependencies)} requirements asked about, {len(found)} advisories")
    return FOUND if found else 0


def _not_asked(reason: str) -> int:
    print(f"not audited, PyPI's advisories can't be read (is there a network? {reason})", file=sys.stderr)
    return NOT_ASKED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
