"""What is read is what is stored: the same from either database, and the same as a plain model says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.errors import Invalid, Overloaded, TooSlow, Unavailable
from ingestor.model import MetricBatch, Row, label_set
from ingestor.model.questions import Aggregation, MetricQuestion, SeriesQuestion, StoredSeries
from ingestor.storage.migrate import migrations
from ingestor.storage.opening import open_database
from ingestor.storage.reading import ReadLimits, connections
from ingestor.timestamps import from_micros, microseconds
from tests.conftest import fresh_database
from tests.reading.conftest import Stored
from tests.storage.deliveries import Gateway, connected, until

START = datetime(2026, 11, 20, 23, 59, 59, 500_000, tzinfo=UTC)
LABELS: Sequence[Mapping[str, str]] = ({}, {"a": "1"}, {"a": "1", "b": 'x"y'}, {"a": "2"})
_AGGREGATES: Mapping[Aggregation, Callable[[list[tuple[int, float]]], float]] = {
    "avg": lambda rows: statistics.fmean(value for _, value in rows),
    "min": lambda rows: min(value for _, value in rows),
    "max": lambda rows: max(value for _, value in rows),
    "sum": lambda rows: sum(value for _, value in rows),
    "count": len,
    "last": lambda rows: max(rows)[1],
    "p50": lambda rows: float(np.percentile([value for _, value in rows], 50)),
    "p95": lambda rows: float(np.percentile([value for _, value in rows], 95)),
    "p99": lambda rows: float(np.percentile([value for _, value in rows], 99)),
}


def batch_of(rows: Sequence[tuple[int, str, str, float, int]]) -> MetricBatch:
    """Rows of a time in microseconds, a service, a metric, a value, and which of LABELS."""
    sets = [label_set(labels) if labels else None for labels in LABELS]
    ids = [each.id if each else 0 for each in sets]
    return MetricBatch.of_rows(
        [Row(*row[:4], ids[row[4]]) for row in rows], {each.id: each.document for each in sets if each}
    )


def question(**fields: object) -> MetricQuestion:
    usual = {
        "service_name": "s",
        "metric_name": "m",
        "start": START,
        "end": START + timedelta(days=1),
        "interval": timedelta(minutes=1),
        "aggregation": "avg",
        "labels": {},
    }
    return MetricQuestion(**{**usual, **fields})  # type: ignore[arg-type]


def model(
    rows: Sequence[tuple[int, str, str, float, int]], asked: MetricQuestion
) -> list[tuple[datetime, float]]:
    """The same by hand."""
    length = asked.interval // timedelta(microseconds=1)
    buckets: dict[int, list[tuple[int, float]]] = {}
    for time_us, service, metric, value, labels in rows:
        if (service, metric) == (asked.service_name, asked.metric_name) and (
            microseconds(asked.start) <= time_us < microseconds(asked.end)
            and asked.labels.items() <= LABELS[labels].items()
        ):
            buckets.setdefault(time_us // length * length, []).append((time_us, value))
    return [
        (from_micros(begin), _AGGREGATES[asked.aggregation](found))
        for begin, found in sorted(buckets.items())
    ]


_ROWS = st.lists(
    st.tuples(
        # Around a moment where days, weeks and partitions meet, with several rows of one moment.
        st.integers(-40, 40).map(lambda quarter: microseconds(START) + quarter * 250_000),
        st.sampled_from(["s", "s", "s", "s'%"]),
        st.sampled_from(["m", "m", "m", "µ"]),
        st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
        st.integers(0, len(LABELS) - 1),
    ),
    min_size=1,
    max_size=40,
)
_QUESTIONS = st.builds(
    question,
    service_name=st.sampled_from(["s", "s", "s'%"]),
    start=st.integers(-50, 10).map(lambda quarter: START + timedelta(microseconds=quarter * 250_000)),
    end=st.integers(11, 50).map(lambda quarter: START + timedelta(microseconds=quarter * 250_000)),
    interval=st.sampled_from([0.25, 1, 3.5, 7, 60, 3_600, 86_400, 604_800]).map(
        lambda s: timedelta(seconds=s)
    ),
    aggregation=st.sampled_from(get_args(Aggregation)),
    labels=st.sampled_from([{}, {"a": "1"}, {"b": 'x"y'}, {"a": "3"}]),
)


async def test_points_are_those_of_a_plain_model(stored: Stored) -> None:
    """Any rows, any range, any interval, any aggregation, any labels."""
    examples: list[tuple[list[tuple[int, str, str, float, int]], list[MetricQuestion]]] = []

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_ROWS, st.lists(_QUESTIONS, min_size=4, max_size=8))
    def collect(rows: list[tuple[int, str, str, float, int]], asked: list[MetricQuestion]) -> None:
        examples.append((rows, asked))

    collect()
    answered = 0
    for rows, asked in examples:
        await stored.database.transactions.execute("TRUNCATE metrics")
        await stored.gateway.store(batch_of(rows))
        for each in asked:
            expected = model(rows, each)
            found = await stored.reader.points(each)
            assert [point.time for point in found] == [time for time, _ in expected], each
            assert [point.value for point in found] == pytest.approx([value for _, value in expected]), each
            answered += bool(expected)
    assert answered > 20


async def test_intervals_before_1970_begin_at_its_multiples_too(stored: Stored) -> None:
    """Floor, and not towards zero."""
    moment = datetime(1969, 12, 31, 23, 59, 58, tzinfo=UTC)
    await stored.gateway.store(batch_of([(microseconds(moment), "s", "m", 1.0, 0)]))
    asked = question(start=moment, end=datetime(1971, 1, 1, tzinfo=UTC), interval=timedelta(seconds=10))
    assert list(await stored.reader.points(asked)) == [(datetime(1969, 12, 31, 23, 59, 50, tzinfo=UTC), 1.0)]


async def test_many_label_sets(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are named one by one are joined; the answer is the same."""
    rows = [(microseconds(START) + number, "s", "m", float(number), number % 4) for number in range(20)]
    await stored.gateway.store(batch_of(rows))
    asked = question(labels={"a": "1"}, aggregation="count")
    assert [point.value for point in await stored.reader.points(asked)] == [10]
    monkeypatch.setattr("ingestor.storage.reading.reader._IDS_MAX", 1)
    assert [point.value for point in await stored.reader.points(asked)] == [10]


@pytest.mark.parametrize(
    ("aggregation", "values"),
    [("sum", [1.7e308, 1.7e308]), ("avg", [1.7e308, 1.7e308]), ("p50", [-1.7e308, 1.7e308])],
)
async def test_what_a_double_can_not_hold_is_refused_by_its_field(
    stored: Stored, aggregation: str, values: list[float]
) -> None:
    """It is the data that has no such sum, and no fault of ours; and it is no Infinity."""
    await stored.gateway.store(batch_of([(microseconds(START), "s", "m", value, 0) for value in values]))
    with pytest.raises(Invalid, match="beyond a double's range") as caught:
        await stored.reader.points(question(aggregation=aggregation))
    assert caught.value.violations[0].field == "aggregation"


async def test_a_mean_of_large_values(stored: Stored) -> None:
    """Their squares are beyond a double's range, their mean is not."""
    rows = [(microseconds(START), "s", "m", value, 0) for value in (1e200, 2e200)]
    await stored.gateway.store(batch_of(rows))
    [point] = await stored.reader.points(question(aggregation="avg"))
    assert point.value == 1.5e200


def asks(**fields: object) -> SeriesQuestion:
    usual = {"service_prefix": "", "metric_prefix": "", "after": ("", ""), "limit": 1_000}
    return SeriesQuestion(**{**usual, **fields})  # type: ignore[arg-type]


def names(found: Sequence[StoredSeries]) -> list[tuple[str, str]]:
    return [(each.service_name, each.metric_name) for each in found]


async def test_series_are_listed_with_their_times(stored: Stored) -> None:
    """By their names' bytes; prefixes are taken as they are written."""
    keys = [("S", "m"), ("s", "m"), ("s%", "m"), ("s_", "a"), ("s_", "b\\"), ("sx", "m"), ("ä", "m")]
    rows = [
        (microseconds(START) + place * 1_000 + number, *key, 1.0, 0)
        for place, key in enumerate(keys)
        for number in (5, 0, 9)
    ]
    await stored.gateway.store(batch_of(rows))
    found = await stored.reader.series(asks())
    assert names(found) == keys
    assert found[1][2:] == (from_micros(rows[4][0]), from_micros(rows[5][0]))
    for fields, expected in (
        ({"service_prefix": "s"}, keys[1:6]),
        ({"service_prefix": "s_"}, keys[3:5]),
        ({"service_prefix": "s%"}, keys[2:3]),
        ({"metric_prefix": "b\\"}, keys[4:5]),
        ({"service_prefix": "s", "metric_prefix": "a"}, keys[3:4]),
        ({"readable": ("S", "sx")}, [keys[0], keys[5]]),
        ({"readable": ("s_",), "service_prefix": "s"}, keys[3:5]),
        ({"readable": ()}, []),
        ({"after": ("s_", "a"), "limit": 2}, keys[4:6]),
    ):
        assert names(await stored.reader.series(asks(**fields))) == expected, fields


async def test_times_follow_what_is_stored(stored: Stored) -> None:
    """A new series at once, those of a known one when they are caught up with; never narrower than before."""
    gateway, micros = stored.gateway, microseconds(START)
    await gateway.store(batch_of([(micros, "s", "m", 1.0, 0)]))
    await gateway.store(batch_of([(micros - 7, "s", "m", 1.0, 0), (micros + 9, "s", "m", 1.0, 0)]))
    await gateway.store(batch_of([(micros + 3, "s", "m", 1.0, 0), (micros, "s", "new", 1.0, 0)]))
    found = await stored.reader.series(asks())
    assert names(found) == [("s", "m"), ("s", "new")]
    await gateway.repository.catch_up(all_=True)
    found = await stored.reader.series(asks())
    assert found[0][2:] == (from_micros(micros - 7), from_micros(micros + 9))


async def test_a_series_of_dead_rows_alone_is_not_listed(stored: Stored) -> None:
    """It has no rows."""
    await stored.database.transactions.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 10)")
    micros = microseconds(START)
    await stored.gateway.store(batch_of([(micros, "good", "m", 1.0, 0), (micros, "dead", "m", 11.0, 0)]))
    assert names(await stored.reader.series(asks())) == [("good", "m")]


async def test_rows_from_before_the_catalogue_are_listed(stored: Stored) -> None:
    """The migration that makes it looks at what is there."""
    await stored.gateway.store(batch_of([(microseconds(START), "s", "m", 1.0, 0)]))
    [migration] = [each for each in migrations() if each.name == "metric_series"]
    async with connected(stored.url) as connection:
        await connection.execute(f"DROP TABLE metric_series; {migration.sql}")
    assert await stored.reader.series(asks()) == [("s", "m", START, START)]


async def test_pages_are_complete_while_series_are_added(stored: Stored) -> None:
    """Each that was there before the first page is on one page, once."""
    micros = microseconds(START)
    there = [(f"s{number:03}", "m") for number in range(50)]
    await stored.gateway.store(batch_of([(micros, *key, 1.0, 0) for key in there]))
    seen: list[tuple[str, str]] = []
    after, number = ("", ""), 0
    while page := names(await stored.reader.series(asks(after=after, limit=7))):
        seen += page
        after = page[-1]
        number += 1
        new = [(micros, f"s{number:03}+", "m", 1.0, 0), (micros, f"s{50 - number:03}+", "m", 1.0, 0)]
        await stored.gateway.store(batch_of(new))
    assert len(set(seen)) == len(seen)
    assert [key for key in seen if key in there] == there
    assert len(seen) > len(there)


_BUSY = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingestor reading' AND state = 'active'"
)


@pytest.fixture
async def locked(stored: Stored) -> Stored:
    """Nobody can read `metrics`."""
    await stored.gateway.store(batch_of([(microseconds(START), "s", "m", 1.0, 0)]))
    return stored


async def test_a_question_that_is_given_up_is_taken_back(locked: Stored) -> None:
    """The server does not go on with it, and its connection is free again."""
    async with connected(locked.url) as other:
        await other.execute("BEGIN; LOCK TABLE metrics")
        asking = asyncio.create_task(locked.reader.points(question()))
        async with connected(locked.url) as watching:
            await until(lambda: watching.fetchval(_BUSY))
            asking.cancel()

            async def gone() -> bool:
                return bool(await watching.fetchval(_BUSY) == 0)

            await until(gone)
        with pytest.raises(asyncio.CancelledError):
            await asking
        await other.execute("ROLLBACK")
    assert len(await locked.reader.points(question())) == 1


async def test_a_question_that_takes_too_long_is_ended(locked: Stored) -> None:
    """By the server itself."""
    reader = await locked.database.open_reader(locked.url, ReadLimits(timeout_s=0.1))
    async with connected(locked.url) as other:
        await other.execute("BEGIN; LOCK TABLE metrics")
        with pytest.raises(TooSlow, match=r"0\.1 s \(QUERY_TIMEOUT\)"):
            await reader.points(question())
        assert await other.fetchval(_BUSY) == 0


async def test_who_finds_no_connection_free_is_told_so(locked: Stored) -> None:
    """After a short wait, and nobody else is kept from one for ever."""
    reader = await locked.database.open_reader(locked.url, ReadLimits(connections=1, wait_s=0.05))
    async with connected(locked.url) as other:
        await other.execute("BEGIN; LOCK TABLE metrics")
        first = asyncio.create_task(reader.points(question()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="QUERY_CONNECTIONS"):
            await reader.points(question())
        await other.execute("ROLLBACK")
    assert len(await first) == 1
    assert len(await reader.points(question())) == 1


async def test_who_is_one_too_many_hears_what_all_wait_for(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are free, but storing goes first."""
    monkeypatch.setattr(connections, "_WAITING_MAX", 0)
    reader = await stored.database.open_reader(stored.url, ReadLimits(share=0.1), lambda: True)
    with pytest.raises(Overloaded, match="QUERY_CONNECTIONS"):
        await reader.points(question())
    with contextlib.ExitStack() as under_way:
        for _ in range(11):
            under_way.enter_context(reader._connections._way.counted())
        with pytest.raises(Overloaded, match="QUERY_SHARE"):
            await reader.points(question())


async def test_it_can_change_nothing(stored: Stored) -> None:
    """Whatever it is asked."""
    with pytest.raises(Unavailable):
        await stored.reader._connections.ask(lambda connection: connection.execute("DELETE FROM metrics"))


async def test_a_question_has_one_process_of_the_server(stored: Stored) -> None:
    """However much it reads: the others are for those who store."""
    name = "max_parallel_workers_per_gather"
    assert await stored.reader._connections.ask(lambda connection: connection.fetchval(f"SHOW {name}")) == "0"


async def test_a_database_that_is_away_is_told(stored: Stored) -> None:
    stored.reader.move("postgresql://127.0.0.1:1/nowhere")
    with pytest.raises(Unavailable, match="can't be read"):
        await stored.reader.points(question())


async def test_a_database_without_a_letter_has_none_of_it(postgres: str) -> None:
    """What its encoding can't hold was not found in it."""
    async with fresh_database(postgres, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as url:
        database = await open_database(url)
        reader = await database.open_reader(url, ReadLimits())
        try:
            assert list(await reader.points(question(service_name="Ж"))) == []
            assert await reader.series(asks(service_prefix="Ж")) == []
        finally:
            await database.close(5)


async def test_new_blocks_get_into_the_summaries(postgres: str) -> None:
    """On plain PostgreSQL: thick batches are stored by series, and a query of one reads few of their blocks."""
    async with fresh_database(postgres) as url:
        database = await open_database(url)
        gateway, micros = Gateway(database), microseconds(START - timedelta(days=1))
        rows = [(micros + number, f"s{number % 50:02}", "m", float(number), 0) for number in range(50_000)]
        await gateway.store(batch_of(rows))
        await database.summarize()
        async with connected(url) as connection:
            await connection.execute("ANALYZE metrics")
            plan = await connection.fetchval(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT count(*) FROM metrics WHERE service_name = 's07'"
                " AND metric_name = 'm' AND time >= $1 AND time < $2",
                START - timedelta(days=2),
                START,
            )
            blocks = await connection.fetchval(
                "SELECT sum(pg_relation_size(relid)) / 8192 FROM pg_partition_tree('metrics')"
            )
        await database.close(5)
    [top] = json.loads(plan)
    assert "Bitmap" in plan
    assert top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"] < blocks / 5
