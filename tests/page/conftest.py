"""A browser for the tests of the page: one for a module, with a new tab and a gateway for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.gateway import Gateway, gateway
from tests.transport.openapi.browser import Tab, browser, chromium, new_tab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Where its protocol is spoken."""
    binary = chromium()
    if binary is None:
        pytest.skip("there is no chromium here (Debian: apt-get install chromium)")
    async with browser(binary, tmp_path_factory.mktemp("profile")) as base:
        yield base


@pytest_asyncio.fixture(loop_scope="module")
async def page(one_browser: str) -> AsyncIterator[Tab]:
    """An empty tab, with no memory of the others."""
    async with new_tab(one_browser) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def limit() -> AsyncIterator[None]:
    """A page that waits for what does not come fails."""
    async with asyncio.timeout(45):
        yield


@pytest_asyncio.fixture(loop_scope="module")
async def running(database_url: str, limit: None) -> AsyncIterator[Gateway]:
    async with gateway(database_url) as started:
        yield started
