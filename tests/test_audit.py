"""`make audit` says that all is well only when it has asked about everything."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FINE: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
FLAWED: dict[str, Any] = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED: dict[str, Any] = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("dependencies", "code", "told"),
    [
        ([FINE], 0, "1 requirements asked about, 0 advisories"),
        ([FINE, FLAWED], 1, "b 2: PYSEC-1 (mended in 3)"),
        ([FINE, SKIPPED], 3, "not audited"),
        ([FLAWED, SKIPPED], 1, "PYSEC-1"),
    ],
)
def test_verdicts(
    audit: ModuleType,
    capsys: pytest.CaptureFixture[str],
    dependencies: list[dict[str, Any]],
    code: int,
    told: str,
) -> None:
    """What was found is told; what was skipped is not taken for fine."""
    assert audit.judge(dependencies) == code
    captured = capsys.readouterr()
    assert told in captured.out + captured.err
