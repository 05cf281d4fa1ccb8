"""The charts of single series in a browser, before a real gateway: odd values, odd names, and odd clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from tests.gateway import Gateway
from tests.page.kit import SOUND, send, url
from tests.transport.openapi.browser import Tab

pytestmark = pytest.mark.asyncio(loop_scope="module")
VALUE = "document.getElementById('value').textContent"
NOTE = "document.getElementById('chart-note').textContent"
CHOSEN = "document.getElementById('chosen-title').textContent"
# A clock that is twenty minutes late.
LATE = """{ const Real = Date, late = () => Real.now() - 1_200_000;
  globalThis.Date = class extends Real {
    constructor(...given) { if (given.length) super(...given); else super(late()); }
    static now() { return late(); }
  }; }"""


async def store(running: Gateway, metric: str, *values: float, age_s: float = 0, service: str = "s") -> None:
    """Stores these values of a series, all of them so many seconds old."""
    time = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    metrics = [
        {"serviceName": service, "metricName": metric, "value": value, "time": time} for value in values
    ]
    assert (await running.post("/v1/metrics:batch", {"metrics": metrics, "ack": "ACK_LEVEL_COMMITTED"}))[
        0
    ] == 200


def at(running: Gateway, metric: str, service: str = "s", **more: str) -> str:
    return f"{url(running)}#{urlencode({'service': service, 'metric': metric, **more})}"


@pytest.mark.parametrize("value", [1e-300, 1.7e308, -123456.789])
async def test_a_value_of_any_size_fits_a_phone(running: Gateway, page: Tab, value: float) -> None:
    """Nothing is wider than the window, nor hidden by its edge."""
    await store(running, "m", value)
    await page.look(width=390, height=844)
    await page.open(at(running, "m"))
    await page.until(f"{VALUE} !== '\u2013'")
    assert await page.value(SOUND) == []
    assert await page.value("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.readout'))")
    assert page.complaints == []


async def test_the_axis_has_room_for_its_labels(running: Gateway, page: Tab) -> None:
    """As much as they take; no label is cut."""
    room = "document.querySelector('#chart .u-over').offsetLeft"
    await store(running, "small", 1, 2)
    await store(running, "large", 555_556_000_000, age_s=60)
    await store(running, "large", 555_556_000_002)
    await page.look(width=1280, height=900)
    await page.open(at(running, "small"))
    await page.until(f"{VALUE} === '1.5'")
    assert await page.value(room) == 62
    await page.value(f"location.hash = '{at(running, 'large').partition('#')[2]}'")
    await page.until(f"{VALUE} === '555.6B' && {room} > 62")


async def test_the_skip_link_keeps_what_is_chosen(running: Gateway, page: Tab) -> None:
    """It moves the focus, not the address; nor does a fragment of somebody else's undo the choice."""
    await store(running, "m", 7)
    await page.open(at(running, "m", range="1h"))
    await page.until(f"{VALUE} === '7'")
    before = await page.value("location.hash")
    await page.click("#skip")
    assert await page.value("document.activeElement.id") == "series"
    assert await page.value("location.hash") == before
    await page.value("location.hash = '#elsewhere'; new Promise(done => setTimeout(done))")
    assert not await page.value("document.getElementById('chosen').hidden")
    assert await page.value(CHOSEN) == "s / m"


async def test_figures_are_not_read_aloud(running: Gateway, page: Tab) -> None:
    """While figures move, no live region changes; what an arrow key asks for is told."""
    await store(running, "m", 7)
    await page.look(width=1280, height=900)
    await page.open(at(running, "m"))
    await page.until(f"document.body.dataset.state === 'ready' && {VALUE} === '7'")
    await page.until("document.getElementById('list-state').textContent === '1 series'")
    assert await page.text("#announced") == "Ready."
    live = "output, [aria-live], [role=status], [role=alert]"
    await page.value(
        f"window.read = []; document.querySelectorAll('{live}').forEach(each => new MutationObserver(() =>"
        " read.push(each.outerHTML)).observe(each, { childList: true, characterData: true, subtree: true }))"
    )
    await send(running)
    await page.until("parseFloat(document.getElementById('committed').textContent) > 0")
    assert await page.value("read") == []
    await page.value("document.getElementById('chart').focus()")
    await page.press("ArrowLeft")
    await page.until("read.length > 0")
    assert (await page.text("#pointed")).startswith("7 ")


async def test_names_from_right_to_left_keep_their_places(running: Gateway, page: Tab) -> None:
    """The service stands before its metric whatever their scripts are."""
    service, metric = "\u05e9\u05dc\u05d5\u05dd", "\u05e2\u05d5\u05dc\u05dd"
    await store(running, metric, 7, service=service)
    await page.open(at(running, metric, service))
    await page.until(f"{VALUE} === '7' && document.querySelector('#list a')")
    assert await page.value(CHOSEN) == f"{service} / {metric}"
    left = (
        "(wanted => { const range = document.createRange(), walk = document.createTreeWalker("
        "document.getElementById('chosen-title'), NodeFilter.SHOW_TEXT);"
        " for (let node; (node = walk.nextNode());) { const from = node.data.indexOf(wanted);"
        " if (from >= 0) { range.setStart(node, from); range.setEnd(node, from + wanted.length);"
        " return range.getBoundingClientRect().left; } } })"
    )
    assert await page.value(f"{left}('{service}') < {left}('{metric}')")
    assert await page.value("document.querySelectorAll('#list a bdi').length") == 2


async def test_a_name_that_no_browser_asks_for_is_told(running: Gateway, page: Tab) -> None:
    """Dots would be steps in the path: another page would be asked for."""
    await page.open(at(running, "m", ".."))
    await page.until(f"{NOTE}.startsWith('A browser can\u2019t ask for')")
    assert [each for each in page.asked if ":query" in each] == []


async def test_a_late_clock_sees_what_is_stored_now(running: Gateway, page: Tab) -> None:
    """The time is the server's: what was stored a moment ago lies within the last minutes."""
    await store(running, "m", 7)
    await page.call("Page.enable")
    await page.call("Page.addScriptToEvaluateOnNewDocument", source=LATE)
    await page.open(at(running, "m"))
    await page.until(f"{VALUE} === '7' && {NOTE}.startsWith('average')")


async def test_sums_wait_for_their_interval(running: Gateway, page: Tab) -> None:
    """The figure is that of the last interval that is over; what has just begun is told as such."""
    await store(running, "m", 5, 6, age_s=900)
    await store(running, "m", 7)
    await page.open(at(running, "m", range="24h", aggregation="sum"))
    await page.until(f"{VALUE} === '11'")
    assert (await page.text("#value-note")).startswith("last whole interval, from")
    await page.click("#points summary")
    await page.until("document.querySelector('#points tbody tr')")
    assert (await page.text("#points tbody th")).endswith(", so far")


async def test_on_a_phone_a_tap_brings_the_chart_into_sight(running: Gateway, page: Tab) -> None:
    """It lies below the list there."""
    for metric in ("m", "n"):
        await store(running, metric, 7)
    await page.look(width=390, height=844)
    await page.open(url(running))
    top = "document.getElementById('chosen').getBoundingClientRect().top"
    await page.until(f"{VALUE} === '7' && document.querySelectorAll('#list a').length === 2")
    assert await page.value(top) > 844
    await page.click("#list li:last-child a")
    await page.until(f"{CHOSEN} === 's / n' && {top} < 200")
