"""The page's modules that decide something, each asked in a browser: they have no build, and need none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.descriptor_pool import DescriptorPool
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from ingestor import page as live_page
from ingestor.terminal.readings import Between, Reading
from ingestor.transport.http import HttpServer, fixed_page
from ingestor.transport.transcoding import Router
from tests.transport.openapi.browser import new_tab

Js = Callable[[str], Awaitable[Any]]


# One browser for all of them: they leave nothing behind in it.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def js(one_browser: str) -> AsyncIterator[Js]:
    """Says what an expression is, in which `name` of `./file.js` is at hand as `file.name`."""
    blank = fixed_page("text/html", b"<!doctype html><title>blank</title>")
    pages = {path: fixed_page(kind, body, live_page.HEADERS) for path, kind, body in live_page.files()}
    server = HttpServer(Router([], DescriptorPool()), {**pages, "/blank": blank}, body_bytes_max=1000)
    port = await server.start("127.0.0.1", 0)
    names = [path[6:-3] for path in pages if path.endswith(".js")]
    pure = [name for name in names if name not in ("main", "theme", "uplot")]
    imports = "".join(f"const {name} = await import('/page/{name}.js');" for name in pure)
    async with new_tab(one_browser) as opened:
        await opened.open(f"http://127.0.0.1:{port}/blank")

        async def say(expression: str) -> Any:
            async with asyncio.timeout(20):
                return await opened.value(f"(async () => {{ {imports} return {expression}; }})()")

        yield say
    await server.close()


def reading(text: str) -> str:
    return f"prometheus.parse({json.dumps(text)})"


async def test_it_reads_what_prometheus_writes(js: Js) -> None:
    """Every name, label and value, whatever is escaped; comments and what is none of the format are passed over."""
    odd = 'a\\b"c\nd},{=e'
    registry = CollectorRegistry()
    counter = Counter("some", "Help.", ["name", "other"], registry=registry)
    counter.labels(odd, "").inc(1.5)
    counter.labels("ü", "x").inc(2)
    text = generate_latest(registry).decode() + "alone 3\nstamped 4 1700000000\nbig +Inf\n!! no\nhalf{a=\n"
    found = await js(f"Object.fromEntries({reading(text)})")
    assert {each["labels"]["name"]: each["value"] for each in found["some_total"]} == {odd: 1.5, "ü": 2}
    assert [each["labels"]["other"] for each in found["some_total"]] == ["", "x"]
    assert (found["alone"], found["stamped"]) == ([{"labels": {}, "value": 3}], [{"labels": {}, "value": 4}])
    assert "half" not in found
    assert await js(f"prometheus.total({reading(text)}, 'big') === Infinity")
    assert await js(f"prometheus.total({reading(text)}, 'none')") is None


def histogram(*seconds: float) -> str:
    registry = CollectorRegistry()
    made = Histogram("h", "Help.", ["rpc"], registry=registry, buckets=(0.1, 0.2, 0.4))
    for number, each in enumerate(seconds):
        made.labels("ab"[number % 2]).observe(each)
    return generate_latest(registry).decode()


@pytest.mark.parametrize("q", [0.5, 0.99, 1.0])
@pytest.mark.parametrize("after", [(0.05,) * 4, (0.05, 0.15, 0.15, 0.3), (0.05, 9.0, 9.0, 9.0), (0.15,)])
async def test_quantiles_are_those_of_the_terminal(js: Js, q: float, after: tuple[float, ...]) -> None:
    """Two codes for one thing say the same; of the new observations alone, and of all labels together."""
    before, later = histogram(0.05), histogram(0.05, *after)
    expected = Between(Reading.of(before, 0.0), Reading.of(later, 1.0)).quantile("h", q)
    assert await js(f"prometheus.quantile({reading(before)}, {reading(later)}, 'h', {q})") == expected
    assert expected is not None
    assert 0 < expected <= 0.4


async def test_a_quantile_lies_where_it_should(js: Js) -> None:
    """Half of ten observations in one bucket: in the middle of it. Nothing observed, or a server that began anew:
    nothing."""
    ten, none = histogram(*(0.15,) * 10), histogram()
    assert await js(f"prometheus.quantile({reading(none)}, {reading(ten)}, 'h', 0.5)") == pytest.approx(0.15)
    for before, after in ((ten, ten), (ten, none), (ten, histogram(0.15))):
        assert await js(f"prometheus.quantile({reading(before)}, {reading(after)}, 'h', 0.5)") is None


async def test_rates_survive_a_restart_of_the_server(js: Js) -> None:
    """Counters that went back say nothing, and what is not there says nothing either."""
    assert await js(f"prometheus.growth({reading('c 5')}, {reading('c 9')}, 'c')") == 4
    assert await js(f"prometheus.growth({reading('c 9')}, {reading('c 5')}, 'c')") is None
    assert await js(f"prometheus.growth({reading('')}, {reading('c 5')}, 'c')") is None


async def test_samples_are_kept_for_five_minutes_with_gaps_where_nobody_looked(js: Js) -> None:
    """Between readings that lie far apart the line is broken; rates are a second's."""
    told = await js(
        """(() => {
          const kept = new samples.Samples();
          const at = (t, count) => kept.add(t, prometheus.parse(`ingestor_metrics_committed_total ${count}`));
          at(0, 0); at(2, 100); at(100, 300); at(102, 302); at(350, 400); at(352, 420);
          return kept.list.map(({ t, committed }) => [t, committed ?? null]);
        })()"""
    )
    assert [t for t, _ in told] == [100, 102, 102.001, 350, 352]
    assert [rate for _, rate in told] == [pytest.approx(200 / 98), 1, None, pytest.approx(98 / 248), 10]


async def test_services_are_sorted_by_rate(js: Js) -> None:
    """Those of the last seconds; the nameless rest is left out where it is nothing."""
    name = "ingestor_service_metrics_committed_total"
    first = f'{name}{{service=""}} 0\n{name}{{service="a"}} 10\n{name}{{service="b"}} 10\n'
    then = f'{name}{{service=""}} 0\n{name}{{service="a"}} 12\n{name}{{service="b"}} 30\n{name}{{service="c"}} 4\n'
    told = await js(
        f"(() => {{ const kept = new samples.Samples(); kept.add(0, {reading(first)});"
        f" kept.add(2, {reading(then)}); return kept.services; }})()"
    )
    assert told == [{"service": "b", "rate": 10}, {"service": "c", "rate": 2}, {"service": "a", "rate": 1}]


async def test_it_waits_longer_each_time_and_not_for_ever(js: Js) -> None:
    """Twice as long after each failure, up to ten seconds and a little chance."""
    assert await js("[0, 1, 2, 3, 9].map(n => poller.delayMs(2000, n, 0))") == [
        2000,
        4000,
        8000,
        10_000,
        10_000,
    ]
    assert await js("poller.delayMs(2000, 99, 1)") == 12_000


async def test_one_question_at_a_time(js: Js) -> None:
    """However often it is told to ask: what comes meanwhile is asked once, afterwards. Told that it is of no use,
    it asks no more."""
    told = await js(
        """await (async () => {
          let asking = 0, most = 0, asked = 0, answer;
          const one = new poller.Poller(async () => {
            asked += 1; asking += 1; most = Math.max(most, asking);
            await new Promise(done => { answer = done; });
            asking -= 1;
          }, 3600000, () => false);
          const first = one.now(); one.now(); one.now();
          answer(); await first;
          while (asked < 2) await new Promise(done => setTimeout(done, 1));
          answer();
          let failures = 0;
          const two = new poller.Poller(() => { throw new Error("no"); }, 1, () => { failures += 1; return true; });
          await two.now();
          await new Promise(done => setTimeout(done, 30));
          return [asked, most, failures];
        })()"""
    )
    assert told == [2, 1, 1]


async def test_points_have_gaps_where_nothing_was_stored(js: Js) -> None:
    """An interval without a point breaks the line; words for infinities are no numbers."""
    answer = {
        "interval": "2s",
        "points": [
            {"time": f"1970-01-01T00:00:{second:02}Z", "value": value}
            for second, value in ((0, 1), (2, 2.5), (8, 3), (10, "Infinity"))
        ],
    }
    assert await js(f"points.dataOf({json.dumps(answer)})") == [[0, 2, 4, 8, 10], [1, 2.5, None, 3, None]]
    assert await js("points.summary([3, null, 1, 2])") == {"least": 1, "greatest": 3, "last": 2, "count": 3}
    assert await js("points.summary([null])") is None


async def test_numbers_have_units(js: Js) -> None:
    """Sizes that a reader can take in, each with its unit."""
    seconds = await js("[0, 0.0000123, 0.0123, 1.234, 300, 7300].map(v => format.told(v, 'seconds'))")
    assert [each.replace("\u00a0", " ") for each in seconds] == [
        "0 s",
        "12.3 µs",
        "12.3 ms",
        "1.23 s",
        "5 min",
        "2.03 h",
    ]
    assert await js("format.told(1234567, 'rate')") == "1.23M/s"
    assert await js("format.told(1234567, 'total')") == "1,234,567"
    assert await js("format.told(null, 'rate')") == "\u2013"
    assert (await js("format.told(1536, 'bytes')")).replace("\u00a0", " ") == "1.5 KiB"
    assert await js("[format.unitOf('latency_ms'), format.unitOf('orders')]") == ["ms", ""]


async def test_values_of_any_size_are_short(js: Js) -> None:
    """A few digits, and none that would not fit: what is very large or small has its power of ten."""
    values = "[1e-300, -5e-324, 0.0000123, 56.227142, -12345.7, 123456789, 555556000000, 1.7e308]"
    told = await js(f"{values}.map(value => format.toldIn(value, ''))")
    assert told == ["1E-300", "-5E-324", "0.0000123", "56.23", "-12,346", "123,456,789", "555.6B", "1.7E308"]


@pytest.mark.parametrize("unit", ["", "ms"])
@pytest.mark.parametrize(
    ("marks", "step"),
    [
        ([555556000000, 555556000002, 555556000004], 2),
        ([-12500, -12000, -11500], 500),
        ([0, 2.5, 5, 7.5], 2.5),
        ([0.9999, 1, 1.0001], 0.0001),
        ([0, 0], 0),
    ],
)
async def test_no_two_marks_of_an_axis_are_the_same(
    js: Js, unit: str, marks: list[float], step: float
) -> None:
    """However close together they lie beside their size."""
    told = await js(f"format.marksIn({marks}, {step}, '{unit}')")
    assert len(set(told)) == len(set(marks))


async def test_spans_are_told_in_their_largest_unit(js: Js) -> None:
    """Nobody thinks in 3600 s."""
    told = await js("[0.5, 5, 90, 300, 3600, 172800].map(format.span)")
    assert [each.replace("\u00a0", " ") for each in told] == ["0.5 s", "5 s", "90 s", "5 min", "1 h", "2 d"]


async def test_what_has_not_ended_is_drawn_apart(js: Js) -> None:
    """Sums of an interval of which more comes, or of which part lies before, say too little."""
    data = "[[0, 10, 20], [1, 2, 3]]"
    assert await js(f"points.since({data}, 5)") == [[10, 20], [2, 3]]
    assert await js(f"points.since({data}, 25)") == [[], []]
    assert await js("[29, 30].map(to => points.ended([0, 10, 20], 10, to))") == [2, 3]
    assert await js("points.ended([], 10, 5)") == 0
    assert await js(f"points.drawn({data}, 2)") == [[0, 10, 20], [1, 2, None], [None, 2, 3]]
    assert await js(f"points.drawn({data}, 3)") == [[0, 10, 20], [1, 2, 3], [None] * 3]


async def test_keys_that_no_header_holds_are_none(js: Js) -> None:
    """A browser would not send them, which is no outage."""
    assert await js("['ing_aB9~', 'ing_ключ', 'a b', 'é', ''].map(api.sendable)") == [True] + [False] * 4


async def test_a_choice_is_kept_in_the_address(js: Js) -> None:
    """Whatever the names are; what is none of ours is the usual."""
    choice = {"service": "a b&c=#", "metric": "m/ü", "range": "6h", "aggregation": "p95"}
    assert await js(f"choice.read(choice.write({json.dumps(choice)}))") == choice
    assert await js("choice.read('#range=constructor&aggregation=x')") == {
        "service": "",
        "metric": "",
        "range": "15m",
        "aggregation": "avg",
    }
    assert await js("choice.prefixes(' check / lat')") == {"service_prefix": "check", "metric_prefix": "lat"}
