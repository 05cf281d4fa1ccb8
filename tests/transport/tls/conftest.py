"""A CA for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Pki


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki.make(tmp_path)
