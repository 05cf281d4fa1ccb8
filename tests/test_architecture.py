"""ARCHITECTURE.md speaks of what is there."""

from __future__ import annotations

import importlib
import re
from operator import attrgetter
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parent.parent / "ARCHITECTURE.md").read_text()
ELEMENTS = [
    "cmd/server",
    "internal/app",
    "IngestorService",
    "log_metric",
    "start_batch_processing",
    "flush_batch",
]
ELEMENTS += ["MetricRepository", "TransactionManager", "table `metrics`", "parameters"]
ROWS = re.findall(r"^\|.*\| `(ingestor[\w.]*)` \| `([\w.]+)` \|$", TEXT, re.MULTILINE)


def test_the_table_has_every_element_of_the_first_design() -> None:
    """None is missing, and the table opens the document."""
    table = TEXT[: TEXT.index("\n## ")]
    assert [element for element in ELEMENTS if element not in table] == []
    assert len(ROWS) >= len(ELEMENTS)


@pytest.mark.parametrize(("module", "symbol"), ROWS)
def test_every_symbol_in_it_resolves(module: str, symbol: str) -> None:
    """What an element became exists under the name that the table gives."""
    assert attrgetter(symbol)(importlib.import_module(module)) is not None


def test_named_files_and_packages_exist() -> None:
    """A module that was renamed is renamed in the text, too."""
    root = Path(__file__).resolve().parent.parent
    for name in re.findall(r"`(tests/[\w/]+\.py|ingestor\.[a-z_.]+)`", TEXT):
        path = root / name if name.endswith(".py") else root / name.replace(".", "/")
        assert path.exists() or path.with_suffix(".py").exists(), name
