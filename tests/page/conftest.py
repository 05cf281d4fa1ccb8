"""A browser for the tests of the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.transport.openapi.browser import Tab, chromium, tab


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Tab]:
    """An empty tab of a browser of its own."""
    browser = chromium()
    if browser is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    async with tab(browser, tmp_path / "profile") as opened:
        yield opened
