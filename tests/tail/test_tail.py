"""What is shown of what is being stored: all of it, in order, as long as it is read; bounded and counted when it is
not."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from ingestor.errors import Overloaded
from ingestor.model import DeadRow, Delivery, MetricBatch, Outcome, Placed, Request, Row, label_set
from ingestor.model.questions import EVERYTHING
from ingestor.tail import Tail, TailLimits
from ingestor.tail.watch import Watch
from ingestor.telemetry import Telemetry

FAST = 10**9
STORED = Outcome()


def batch_of(*values: float, service: str = "s", metric: str = "m") -> MetricBatch:
    return MetricBatch.of_rows([Row(1, service, metric, value) for value in values], {})


def delivery(batch: MetricBatch, *requests: Placed) -> Delivery:
    return Delivery(batch, batch, 0, 1, requests)


def values(batch: MetricBatch | None) -> list[float]:
    return [] if batch is None else batch.columns.column("value").to_pylist()


def tail_of(**limits: float) -> Tail:
    return Tail(Telemetry(), TailLimits(**{"rows_per_second": FAST, **limits}))  # type: ignore[arg-type]


async def test_rows_are_shown_in_their_order() -> None:
    """To each who watches, from then on."""
    tail = tail_of()
    tail.committed(delivery(batch_of(0)), STORED)
    with tail.watch("", "", EVERYTHING) as one, tail.watch("", "", EVERYTHING) as other:
        for number in (1, 3):
            tail.committed(delivery(batch_of(number, number + 1)), STORED)
        for watch in (one, other):
            assert [
                (values(batch), dropped) for batch, dropped in [await watch.seen(), await watch.seen()]
            ] == [
                ([1, 2], 0),
                ([3, 4], 0),
            ]


async def test_only_what_is_stored_and_asked_for_is_shown() -> None:
    """Not what the database refused, nor what was stored before; and of the rest what passes the filters."""
    tail = tail_of()
    rows = [
        Row(1, service, metric, value)
        for value, (service, metric) in enumerate(zip("aaaxa", "bbcbb", strict=True))
    ]
    batch = MetricBatch.of_rows(rows, {})
    outcome = Outcome([DeadRow(0, "23514", "too low")], duplicates=[0])
    repeated = Placed(4, 1, Request("", "r", b"", 1))
    for filters, shown in {
        ("", "", EVERYTHING): [1, 2, 3],
        ("a", "", EVERYTHING): [1, 2],
        ("", "b", EVERYTHING): [1, 3],
        ("a", "b", EVERYTHING): [1],
        ("", "", ("x", "y")): [3],
        ("a", "", ("x",)): [],
    }.items():
        with tail.watch(*filters) as watch:
            tail.committed(delivery(batch, repeated), outcome)
            tail.committed(delivery(batch_of(9, service="end")), STORED)
            assert watch.held_bytes > 0 or not shown
            if shown:
                assert values((await watch.seen())[0]) == shown


async def test_many_rows_are_shown_piece_by_piece() -> None:
    """In their order; what waits counts until it is shown."""
    tail = tail_of()
    with tail.watch("", "", EVERYTHING) as watch:
        tail.committed(delivery(batch_of(*range(1_200))), STORED)
        held = watch.held_bytes
        pieces = []
        for left in (held, held, 0):
            batch, dropped = await watch.seen()
            pieces.append(values(batch))
            assert (dropped, watch.held_bytes) == (0, left)
        assert [len(piece) for piece in pieces] == [500, 500, 200]
        assert [value for piece in pieces for value in piece] == list(range(1_200))


async def test_a_slow_reader_loses_rows_and_is_told_how_many() -> None:
    """Those that came when it had no room; the others keep their order, and the count stands where they were."""
    tail = tail_of(rows=3)
    with tail.watch("", "", EVERYTHING) as watch:
        tail.committed(delivery(batch_of(1, 2)), STORED)
        tail.committed(delivery(batch_of(3, 4, 5)), STORED)
        tail.committed(delivery(batch_of(6)), STORED)
        assert (values((await watch.seen())[0]), values((await watch.seen())[0])) == ([1, 2], [3])
        tail.committed(delivery(batch_of(7)), STORED)
        batch, dropped = await watch.seen()
        assert (values(batch), dropped) == ([7], 3)
        tail.committed(delivery(batch_of(8, 9, 10, 11)), STORED)
        assert values((await watch.seen())[0]) == [8, 9, 10]
        assert await watch.seen() == (None, 1)


async def test_a_reader_that_stops_holds_little_memory() -> None:
    """However much is stored, and however large its labels are; not even what its rows were cut from."""
    telemetry = Telemetry()
    tail = Tail(telemetry, TailLimits(rows=10_000, bytes=1024**2))
    with tail.watch("", "", EVERYTHING) as watch:
        for number in range(40):
            sets = [label_set({"l": f"{number}-{row}" + "x" * 1_000}) for row in range(500)]
            rows = [Row(1, "s", "m", 1.0, labels.id) for labels in sets]
            tail.committed(
                delivery(MetricBatch.of_rows(rows, {each.id: each.document for each in sets})), STORED
            )
        assert 512 * 1024 < watch.held_bytes <= 1024**2
        told = telemetry.registry.get_sample_value("ingestor_tail_dropped_rows_total")
        kept = sum(part.batch.rows for part in watch._parts)
        assert told == 40 * 500 - kept
        assert sum(len(part.batch.label_sets) for part in watch._parts) == kept


async def test_plain_rows_are_copied_and_not_held_with_their_batch() -> None:
    """A slice would keep all of what it was cut from."""
    tail = tail_of(rows=100)
    with tail.watch("", "", EVERYTHING) as watch:
        big = batch_of(*range(100_000))
        tail.committed(delivery(big), STORED)
        assert 0 < watch.held_bytes < 20_000


async def test_who_has_no_room_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stopped costs the worker nothing for each row."""
    tail = tail_of(rows=2)
    with tail.watch("", "", EVERYTHING):
        tail.committed(delivery(batch_of(1, 2)), STORED)
        monkeypatch.setattr(MetricBatch, "filtered", None)
        tail.committed(delivery(batch_of(3, 4)), STORED)


async def test_readers_are_bounded() -> None:
    """One more is told to come back; one that left makes room."""
    tail = tail_of(readers=2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(tail.watch("", "", EVERYTHING))
        with pytest.raises(Overloaded, match="2 readers"), tail.watch("", "", EVERYTHING):
            pass
    with tail.watch("", "", EVERYTHING) as watch:
        assert isinstance(watch, Watch)


async def test_quiet_is_told() -> None:
    """Or nobody would notice that a reader is gone."""
    tail = tail_of(quiet_s=0.01)
    with tail.watch("", "", EVERYTHING) as watch:
        assert await watch.seen() == (None, 0)


async def test_readers_share_what_may_be_shown() -> None:
    """The next rows come when those before them have been paid for, by their number and by that of the readers."""
    tail = tail_of(rows_per_second=1_000)
    loop = asyncio.get_running_loop()
    with tail.watch("", "", EVERYTHING) as watch, tail.watch("", "", EVERYTHING):
        tail.committed(delivery(batch_of(*range(50))), STORED)
        tail.committed(delivery(batch_of(1)), STORED)
        began = loop.time()
        await watch.seen()
        await watch.seen()
        assert loop.time() - began >= 0.099
