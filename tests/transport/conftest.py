"""The library: one API for all tests of what knows no API of ours, served by methods that say what they got."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from tests.transport.library.compiling import compile_api
from tests.transport.library.service import Library

PACKAGE = "library_api"


@pytest.fixture(scope="session")
def made_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """The package, generated once a run as `make gen` generates ours, and bound to its methods."""
    folder = tmp_path_factory.mktemp("library")
    compile_api(folder / PACKAGE)
    sys.path.insert(0, str(folder))
    try:
        yield Library(PACKAGE)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def library(made_library: Library) -> Library:
    """It, fresh: no test hears of another's calls."""
    made_library.requests.clear()
    made_library.release = asyncio.Event()
    return made_library
