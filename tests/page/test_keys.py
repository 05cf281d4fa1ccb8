"""The page before a gateway that asks for keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ingestor.access import KeysFile
from tests.access.kit import make
from tests.gateway import Gateway, gateway
from tests.transport.openapi.browser import Tab

pytestmark = pytest.mark.asyncio(loop_scope="module")
OPEN = "document.getElementById('key').open"
TITLE = "document.getElementById('key-title').textContent"
KEPT = "sessionStorage.getItem('ingestor-key')"
FIGURE = "document.getElementById('committed').textContent"
NO_FIGURE = f"{FIGURE} === '\u2013'"


@pytest_asyncio.fixture(loop_scope="module")
async def locked(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway, and the one key that may read all of it."""
    key, text = make("read", name="reader")
    KeysFile(tmp_path / "keys").change(lambda _: [key])
    async with asyncio.timeout(45), gateway(database_url, keys_file=tmp_path / "keys") as running:
        yield running, text


async def test_a_key_is_asked_for_and_kept_for_the_tab(locked: tuple[Gateway, str], page: Tab) -> None:
    """A wrong one is asked for again; the right one shows figures and outlives a reload, in this tab alone."""
    running, text = locked
    base = f"http://{running.host}:{running.http_port}/"

    async def enter(key: str) -> None:
        await page.until(OPEN)
        await page.value(f"document.getElementById('key-value').value = '{key}'")
        await page.click("#key-use")

    await page.open(base)
    await page.until(OPEN)
    assert await page.value(TITLE) == "An API key is needed"
    assert await page.value(NO_FIGURE)
    assert await page.value("document.activeElement.id") == "key-value"
    await enter("ing_wrong")
    await page.until(f"{TITLE} === 'This key is not known here'")
    assert await page.value(NO_FIGURE)
    await enter(text)
    await page.until(f"!({NO_FIGURE}) && document.body.dataset.state === 'ready'")
    assert await page.value(KEPT) == text
    assert await page.value("JSON.stringify(localStorage) + document.cookie + location.href") == f"{{}}{base}"
    await page.open(base)
    await page.until(f"!({NO_FIGURE})")
    assert not await page.value(OPEN)
    await page.click("#key-open")
    await page.click("#key-forget")
    await page.until(f"{OPEN} && {TITLE} === 'An API key is needed'")
    assert await page.value(KEPT) is None


async def test_without_a_key_it_says_what_is_missing(locked: tuple[Gateway, str], page: Tab) -> None:
    """The dialog closed, a button is left; what can't be a key is told to be the key's fault, not the gateway's."""
    running, text = locked
    await page.open(f"http://{running.host}:{running.http_port}/")
    await page.until(OPEN)
    await page.click("#key-close")
    await page.until("document.body.dataset.state === 'locked'")
    assert await page.text("#state") == "Key needed"
    await page.click("#key-enter")
    await page.until(OPEN)
    await page.value("document.getElementById('key-value').value = 'ing_\u043a\u043b\u044e\u0447'")
    await page.click("#key-use")
    assert await page.value("document.getElementById('key-wrong').checkVisibility()")
    assert await page.value(OPEN)
    assert await page.value(KEPT) is None
    await page.value(f"document.getElementById('key-value').value = '{text}'")
    await page.click("#key-use")
    await page.until("document.body.dataset.state === 'ready'")
    assert await page.value("document.getElementById('banner').hidden")
