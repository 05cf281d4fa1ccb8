"""Bulk requests share the turns of the event loop out, first come first: so much a turn, and so much that waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pyarrow as pa
import pytest

from ingestor.errors import Invalid, Overloaded
from ingestor.transport import rpc as rpcs
from ingestor.transport.columns import ReferenceDecoder
from ingestor.transport.rpc import ColumnCall, Turns
from tests.columns.metrics import descriptor, request

TURN = rpcs._TURN_BYTES


async def loop_turn(now: list[int]) -> None:
    """Counts those of the event loop, for ever."""
    while True:
        now[0] += 1
        await asyncio.sleep(0)


async def costs_by_turn(sizes: list[int]) -> list[list[int]]:
    """What was decoded in each turn of the event loop, of requests that came in one."""
    turns, now = Turns(), [0]
    taken: list[tuple[int, int]] = []

    async def decode(size: int) -> None:
        await turns.take(size)
        taken.append((now[0], size))
        turns.give()

    counting = asyncio.create_task(loop_turn(now))
    await asyncio.gather(*(decode(size) for size in sizes))
    counting.cancel()
    assert [size for _, size in taken] == sizes
    by_turn: dict[int, list[int]] = {}
    for turn, size in taken:
        by_turn.setdefault(turn, []).append(size)
    return list(by_turn.values())


async def test_a_turn_decodes_so_much_or_one_that_is_larger() -> None:
    """Those who fit into a turn share it; in the order in which they came."""
    assert await costs_by_turn([TURN // 2] * 2) == [[TURN // 2] * 2]
    for costs in await costs_by_turn([TURN // 3, TURN, 2 * TURN, TURN // 3, TURN // 2, 5 * TURN, 1]):
        assert sum(costs) <= TURN or len(costs) == 1


async def test_a_new_turn_has_its_whole_share() -> None:
    """Whatever the one before has left: two halves fit into it, and a third does not."""
    turns, now = Turns(), [0]
    counting = asyncio.create_task(loop_turn(now))
    seen = []
    for size in (TURN, TURN // 2, TURN // 2, TURN // 2):
        await turns.take(size)
        seen.append(now[0])
        turns.give()
    counting.cancel()
    assert [turn - seen[0] for turn in seen] == [0, 1, 1, 2]


async def test_who_waits_gives_up_and_the_next_one_goes_on() -> None:
    """In line, and at the head of it, where what came in meanwhile goes first."""
    turns = Turns()
    await turns.take(TURN)
    turns.give()
    at_the_head = asyncio.create_task(turns.take(TURN))
    in_line, last = asyncio.create_task(turns.take(TURN)), asyncio.create_task(turns.take(TURN))
    await asyncio.sleep(0)
    assert not at_the_head.done()
    for given_up in (at_the_head, in_line):
        given_up.cancel()
    async with asyncio.timeout(10):
        await last
    assert at_the_head.cancelled()
    assert in_line.cancelled()


async def test_what_waits_to_be_decoded_is_bounded() -> None:
    """Who would be too much has not entered, and whoever leaves makes room."""
    turns = Turns()
    most = rpcs._WAITING_BYTES_MAX
    turns.enter(most - 10)
    turns.enter(10)
    with pytest.raises(Overloaded) as refused:
        turns.enter(1)
    assert refused.value.retry_after_s > 0
    turns.leave(10)
    turns.enter(10)
    with pytest.raises(Overloaded):
        turns.enter(1)


class Noted(Turns):
    """Turns that note what they are asked for, and how many bytes wait."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[int] = []

    async def take(self, size: int) -> None:
        self.costs.append(size)
        await super().take(size)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    @property
    def is_free(self) -> bool:
        return not self._free.locked()


def column_call(turns: Turns, elements_max: int = 1_000_000) -> ColumnCall:
    return ColumnCall(ReferenceDecoder(descriptor()), len, "metrics", elements_max, turns)


async def test_rows_cost_what_they_take_however_few_their_bytes() -> None:
    """An empty one has two bytes, and is as much work as one of twenty."""
    turns = Noted()
    call = column_call(turns)
    empty, usual = b"\x0a\0" * 1_000, request({"service_name": "s" * 1_000, "metric_name": "m", "value": 1.0})
    await call.decoded(empty)
    await call.decoded(usual)
    assert turns.costs == [20 * 1_000, len(usual)]


async def test_a_large_request_takes_a_turn_for_each_piece() -> None:
    """And is one batch in the end; others have theirs in between."""
    turns = Noted()
    call = column_call(turns)
    row = request({"service_name": "s" * 200, "metric_name": "m", "value": 1.0})
    rows = 3 * rpcs._PIECE_BYTES // len(row)
    large = asyncio.create_task(call.decoded(row * rows))
    small = asyncio.create_task(call.decoded(row))
    decoded = await large
    assert isinstance(decoded, pa.RecordBatch)
    assert len(decoded.column("metrics").flatten()) == rows
    assert small.done()
    assert turns.costs.index(len(row)) < len(turns.costs) - 1
    assert len(turns.costs) >= 4


@pytest.mark.parametrize(
    ("body", "elements_max"),
    [(b"\x0a\xff", 10), (b"\x0a\0" * 11, 10), (b"\x0a\0" * 10 + b"\x0a\7", 100)],
    ids=["broken", "too many", "broken late"],
)
async def test_a_request_that_is_wrong_leaves_its_turn_and_its_room(body: bytes, elements_max: int) -> None:
    """Whether its bytes are broken, or too many elements are in them."""
    turns = Noted()
    call = column_call(turns, elements_max)

    def parse(piece: bytes) -> None:
        if piece.endswith((b"\xff", b"\7")):
            msg = "the body is not valid"
            raise Invalid(msg)

    with pytest.raises(Invalid):
        await call.decoded(body, parse)
    assert (turns.waiting_bytes, turns.is_free) == (0, True)


async def test_a_request_that_is_given_up_leaves_its_turn_and_its_room() -> None:
    """Wherever it was: nobody has to wait for what will never be decoded."""
    row = request({"service_name": "s", "metric_name": "m", "value": 1.0})
    became: Counter[str] = Counter()
    for after in range(6):
        turns = Noted()
        call = column_call(turns)
        body = row * (2 * rpcs._PIECE_BYTES // len(row))
        tasks = [asyncio.create_task(call.decoded(body)) for _ in range(3)]
        for _ in range(after):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            became["cancelled" if task.cancelled() else "decoded"] += 1
        assert (turns.waiting_bytes, turns.is_free) == (0, True), after
    assert became["cancelled"] > 6


async def test_who_finds_no_room_to_wait_is_refused_before_anything_is_decoded() -> None:
    """Nothing was taken, and nothing is left to be given back."""
    turns = Noted()
    call = column_call(turns)
    turns.enter(rpcs._WAITING_BYTES_MAX)
    with pytest.raises(Overloaded):
        await call.decoded(b"\x0a\0")
    assert (turns.waiting_bytes, turns.costs) == (rpcs._WAITING_BYTES_MAX, [])
