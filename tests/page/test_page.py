"""The page in a browser, before a real gateway."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from tests.gateway import Gateway, gateway
from tests.page.kit import DRAWN, SOUND, STATE, send, several, url
from tests.transport.openapi.browser import Tab

# One browser for all of them, which lives on their loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_load_arrives_and_the_charts_move(running: Gateway, page: Tab) -> None:
    """Figures, charts, table and services tell of what is sent while somebody looks, and nothing else is asked for
    than this server."""
    await page.look(width=1280, height=900)
    await page.open(url(running))
    await page.until(f"{STATE} === 'ready' && document.getElementById('committed').textContent === '0/s'")
    before = await page.value(DRAWN.format("#throughput"))
    await send(running)
    await page.until("parseFloat(document.getElementById('committed').textContent) > 0")
    assert "50 metrics committed" in await page.text("#totals")
    assert await page.value(DRAWN.format("#throughput")) != before
    assert (await page.text("#ack .large")).endswith("ms")
    assert "p50" in await page.text("#flush .pair .note")
    await page.click("#recent summary")
    assert "Committed" in await page.text("#recent thead")
    assert "/s" in await page.text("#recent tbody tr td")
    await page.until("document.querySelector('#services tbody')")
    assert await page.text("#services tbody th") == "checkout"
    base = url(running)
    assert [each for each in page.asked if not each.startswith((base, "data:"))] == []
    assert page.complaints == []


async def test_an_outage_shows_and_passes(database_url: str, limit: None, page: Tab) -> None:
    """What can't be reached is said so, with what is shown from before; it is tried again by itself."""
    async with gateway(database_url) as running:
        port, base = running.http_port, url(running)
        await page.open(base)
        await page.until(f"{STATE} === 'ready'")
        await page.until("document.getElementById('committed').textContent !== '\u2013'")
    await page.until(f"{STATE} === 'unreachable'")
    assert "can\u2019t be reached since" in (await page.text("#banner")).replace("\n", " ")
    assert await page.text("#state") == "Unreachable"
    assert await page.value("document.title") == "Unreachable · Ingestor"
    assert await page.value("document.getElementById('committed').textContent") != "\u2013"
    async with gateway(database_url, http_port=port):
        await page.until(f"{STATE} === 'ready'")
        assert await page.value("document.getElementById('banner').hidden")


async def test_a_database_that_is_away_is_told(running: Gateway, page: Tab) -> None:
    """With the reason, and that nothing is lost meanwhile."""
    await page.open(url(running))
    await page.until(f"{STATE} === 'ready'")
    await running.database.transactions.execute("ALTER TABLE metrics RENAME TO away")
    assert (await running.post("/v1/metrics:batch", several("s", "m", 7)))[0] == 200
    await page.until(f"{STATE} === 'degraded'")
    told = (await page.text("#banner")).replace("\n", " ")
    assert "database: " in told
    await page.until("document.getElementById('banner').innerText.includes('7 wait')")
    await running.database.transactions.execute("ALTER TABLE away RENAME TO metrics")
    await page.until(f"{STATE} === 'ready'")


async def test_a_hidden_tab_asks_for_nothing(running: Gateway, page: Tab) -> None:
    """And asks at once when somebody looks again."""
    await page.open(url(running))
    await page.until("document.getElementById('committed').textContent !== '\u2013'")
    hide = "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }});"
    changed = "document.dispatchEvent(new Event('visibilitychange'))"
    await page.value(hide.format("true") + changed)
    await page.value("new Promise(done => setTimeout(done, 300))")  # what was under way
    asked = len(page.asked)
    await page.value("new Promise(done => setTimeout(done, 2500))")
    assert len(page.asked) == asked
    await page.value(hide.format("false") + changed)
    await page.value("new Promise(done => setTimeout(done, 200))")
    assert len(page.asked) > asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_it_is_sound(running: Gateway, page: Tab, width: int, scheme: str) -> None:
    """Every control has a name, headings their order, text its contrast, and nothing is wider than a phone."""
    await send(running)
    await page.look(width=width, height=844, scheme=scheme)
    await page.open(url(running))
    await page.until(f"{STATE} === 'ready' && document.querySelector('#list a')")
    await send(running)
    await page.until("document.querySelector('#services tbody')")
    await page.value("document.querySelectorAll('summary').forEach(each => each.click())")
    await page.until("document.querySelectorAll('details table').length === 2")
    assert await page.value("document.documentElement.dataset.theme") == scheme
    assert await page.value(SOUND) == []
    await page.click("#key-open")
    assert await page.value(SOUND) == []


async def test_colours_are_chosen_and_kept(running: Gateway, page: Tab) -> None:
    """Against the system's, across a reload, and given back to it."""
    await page.look(width=1280, height=900)
    await page.open(url(running))
    at = "document.getElementById('theme')"
    choose = f"{at}.value = '{{}}'; {at}.dispatchEvent(new Event('change'))"
    theme = "document.documentElement.dataset.theme"
    await page.value(choose.format("dark"))
    assert await page.value(theme) == "dark"
    await page.open(url(running))
    assert await page.value(theme) == "dark"
    await page.value(choose.format("system"))
    assert await page.value(theme) == "light"


async def test_the_first_metric_appears_by_itself(running: Gateway, page: Tab) -> None:
    """An empty gateway says what to send; the line can be pasted, and what it sent is then on a chart."""
    await page.open(url(running))
    await page.until("!document.getElementById('empty').hidden")
    line = await page.text("#curl")
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", line], capture_output=True, text=True, check=True, timeout=10
    )
    assert done.stdout == '{"success":true}'
    await page.until("!document.getElementById('chosen').hidden")
    assert await page.text("#chosen-title") == "checkout / latency_ms"
    await page.until("document.getElementById('value').textContent === '12.5\u00a0ms'")
    assert await page.value("document.getElementById('empty').hidden")


async def test_a_series_chart_moves(running: Gateway, page: Tab) -> None:
    """What is stored while somebody looks is drawn, told and in the table, by itself."""
    await send(running, count=1)
    await page.look(width=1280, height=900)
    await page.open(f"{url(running)}#service=checkout&metric=latency_ms")
    await page.until("document.getElementById('value').textContent === '40\u00a0ms'")
    before = await page.value(DRAWN.format("#chart"))
    await send(running, count=11)
    await page.until("document.getElementById('value').textContent !== '40\u00a0ms'")
    assert await page.value(DRAWN.format("#chart")) != before
    assert "average of each" in await page.text("#chart-note")
    at = "document.getElementById('aggregation')"
    await page.value(f"{at}.value = 'count'; {at}.dispatchEvent(new Event('change'))")
    await page.click("#points summary")
    await page.until("document.querySelector('#points tbody td')")
    assert await page.text("#points thead th:nth-child(2)") == "count"
    cells = "[...document.querySelectorAll('#points tbody td')]"
    counts = f"{cells}.reduce((sum, cell) => sum + Number(cell.textContent), 0)"
    await page.until(f"{counts} === 12")
    assert "aggregation=count" in await page.value("location.hash")
    assert page.complaints == []


async def test_series_are_found_by_the_beginnings_of_their_names(running: Gateway, page: Tab) -> None:
    """Of the service, and of the metric behind a slash; more than a page of them, page by page."""
    metrics = [{"serviceName": f"s{number:03}", "metricName": "m", "value": 1} for number in range(130)]
    other = {"serviceName": "search", "metricName": "hits / day", "value": 3}
    body = {"metrics": [*metrics, other], "ack": "ACK_LEVEL_COMMITTED"}
    assert (await running.post("/v1/metrics:batch", body))[0] == 200
    await page.open(url(running))
    links = "document.querySelectorAll('#list a')"
    await page.until(f"{links}.length === 100")
    await page.click("#more")
    await page.until(f"{links}.length === 131")
    assert await page.value("document.getElementById('more').hidden")
    at = "document.getElementById('search')"
    search = f"{at}.value = {{!r}}; {at}.dispatchEvent(new Event('input'))"
    await page.value(search.format("sea/hits"))
    await page.until(f"{links}.length === 1")
    await page.click("#list a")
    await page.until("document.getElementById('value').textContent === '3'")
    assert await page.text("#chosen-title") == "search / hits / day"
    assert await page.value("document.querySelector('#list a').getAttribute('aria-current')") == "true"
    await page.value(search.format("nobody"))
    assert await page.text("#list-state") != ""
    await page.until("document.getElementById('list-state').textContent === 'No series begins like this.'")


async def test_the_keyboard_reads_the_points(running: Gateway, page: Tab) -> None:
    """Arrow keys move along the chart, and what is pointed at is told."""
    now = datetime.now(UTC)
    metrics = [
        {
            "serviceName": "s",
            "metricName": "m",
            "value": value,
            "time": (now - timedelta(minutes=minutes)).isoformat(),
        }
        for value, minutes in ((1, 9), (2, 6), (3, 3))
    ]
    body = {"metrics": metrics, "ack": "ACK_LEVEL_COMMITTED"}
    assert (await running.post("/v1/metrics:batch", body))[0] == 200
    await page.look(width=1280, height=900)
    await page.open(f"{url(running)}#service=s&metric=m")
    value = "document.getElementById('value').textContent"
    await page.until(f"{value} === '3'")
    await page.value("document.getElementById('chart').focus()")
    assert await page.value("document.activeElement.id") == "chart"
    for key, expected in (("ArrowLeft", "3"), ("ArrowLeft", "2"), ("ArrowLeft", "1"), ("ArrowRight", "2")):
        await page.press(key)
        await page.until(f"{value} === '{expected}'")
        assert "at" in await page.text("#value-note")
