"""ARCHITECTURE.md's table beside grpc-gateway is what the tests here show: a docstring for each row."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

from tests.transport.transcoding.compared import (
    test_bodies,
    test_errors,
    test_metadata,
    test_parameters,
    test_paths,
    test_streams,
)

_MODULES = (test_bodies, test_errors, test_metadata, test_parameters, test_paths, test_streams)
_TEXT = (Path(__file__).parents[4] / "ARCHITECTURE.md").read_text("utf-8")

_FORM = re.compile(r"same(?:[;,] .+)?|(?:stricter|ours): .+?\. \S.+|not offered(?:: .+)?")


def _rows() -> dict[str, str]:
    """What is told of each behaviour."""
    table = _TEXT.split("\n| behaviour of grpc-gateway | here |\n| --- | --- |\n")[1].split("\n\n")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines()]
    return {behaviour.strip(): here.strip() for behaviour, here in rows}


def _tested(module: ModuleType) -> list[str]:
    """The docstrings of its tests, each on one line."""
    tests = [
        each for name, each in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_")
    ]
    return [" ".join((test.__doc__ or "").split()) for test in tests]


def test_every_row_but_of_what_is_not_offered_has_a_test_and_every_test_a_row() -> None:
    """Of the same words, so that neither changes alone."""
    rows = _rows()
    offered = {behaviour for behaviour, here in rows.items() if not here.startswith("not offered")}
    tested = [words for module in _MODULES for words in _tested(module)]
    assert len(tested) == len(set(tested))
    assert offered - set(tested) == set()
    assert set(tested) - set(rows) == set()
    assert len(rows) > 40


def test_every_row_says_how_it_compares() -> None:
    """The same, stricter or ours (which is neither), both with a reason behind it, or not offered."""
    for behaviour, here in _rows().items():
        assert _FORM.fullmatch(here), (behaviour, here)
