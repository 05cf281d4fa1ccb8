"""Request ids: the same request is stored once, by whichever gateway and however often it comes; another one under
its id is kept aside."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest

from ingestor.model import MetricBatch, Outcome, Placed, StoredRequest, label_set
from ingestor.storage.database import Database
from ingestor.storage.series import arranged
from tests.storage.deliveries import (
    Gateway,
    Reader,
    batch_of,
    connected,
    count_in,
    delivery_of,
    opened,
    placed,
    row,
    states,
    until,
    values_in,
)

HOUR_S = 3600.0
_WAITS = """
SELECT count(*) FROM pg_stat_activity
  WHERE wait_event_type = 'Lock' AND query LIKE '%INTO request_ids%' AND datname = current_database()
"""
_AGE = "UPDATE request_ids SET committed_at = now() - interval '61 minutes'"


@pytest.fixture
async def other(database: Database) -> Gateway:
    """Another gateway's journal in the same database."""
    return Gateway(database)


async def test_the_same_request_is_stored_once(gateway: Gateway, other: Gateway, reader: Reader) -> None:
    """Sent again, to this gateway or to another: a duplicate, whose rows are left out; those beside it are stored,
    and the cursor moves on."""
    requests = [placed(0, 2, "r")]
    assert await gateway.store(batch_of(1.0, 2.0), requests) == Outcome([], [], [])
    for number, each in enumerate((gateway, other)):
        batch = batch_of(3.0 + number, 1.0, 2.0, 5.0 + number)
        outcome = await each.store(batch, [placed(1, 2, "r"), placed(3, 1, f"new {number}")])
        assert outcome == Outcome([], [0], [])
    assert await values_in(reader) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert (await gateway.cursor(), await other.cursor()) == (2, 1)


async def test_a_delivery_of_nothing_but_duplicates_moves_the_cursor(
    gateway: Gateway, reader: Reader
) -> None:
    """No row is copied, and yet it is done with."""
    requests = [placed(0, 1, "a"), placed(1, 1, "b")]
    await gateway.store(batch_of(1.0, 2.0), requests)
    assert await gateway.store(batch_of(1.0, 2.0), requests) == Outcome([], [0, 1], [])
    assert (await values_in(reader), await gateway.cursor()) == ([1.0, 2.0], 2)


async def test_another_callers_id_is_another_id(gateway: Gateway, reader: Reader) -> None:
    """Ids are each caller's own."""
    mine, theirs = placed(0, 1, "r", caller="a"), placed(1, 1, "r", caller="b")
    assert await gateway.store(batch_of(1.0, 2.0), [mine, theirs]) == Outcome([], [], [])
    assert await values_in(reader) == [1.0, 2.0]


async def test_other_rows_under_a_known_id_go_to_dead_letters(gateway: Gateway, reader: Reader) -> None:
    """They were acknowledged and must not vanish; nor are they stored as if they were the first request's."""
    await gateway.store(batch_of(1.0), [placed(0, 1, "r")])
    outcome = await gateway.store(
        batch_of(2.0, 3.0, 4.0), [placed(0, 2, "r", asks="else"), placed(2, 1, "q")]
    )
    assert states(outcome.dead) == [(0, None), (1, None)]
    assert list(outcome.duplicates) == []
    found = await reader.fetch("SELECT metric, reason, request_id FROM dead_letters ORDER BY row")
    assert [json.loads(each["metric"])["value"] for each in found] == [2.0, 3.0]
    assert {each["request_id"] for each in found} == {b"r"}
    assert {each["reason"] for each in found} == {
        "its request_id was used before, for a request with other rows"
    }
    assert await values_in(reader) == [1.0, 4.0]


async def test_one_id_twice_in_a_delivery(gateway: Gateway, reader: Reader) -> None:
    """The first counts; the same again is a duplicate, and others under its id are dead."""
    requests = [placed(0, 1, "r"), placed(1, 1, "r"), placed(2, 1, "r", asks="else"), placed(3, 1, "r")]
    outcome = await gateway.store(batch_of(1.0, 2.0, 3.0, 4.0), requests)
    assert list(outcome.duplicates) == [1, 3]
    assert states(outcome.dead) == [(2, None)]
    assert await values_in(reader) == [1.0]
    assert await count_in(reader, "request_ids") == 1


async def test_two_gateways_with_one_request_at_once(
    gateway: Gateway, other: Gateway, reader: Reader
) -> None:
    """The second waits for the first to commit, and is a duplicate then; its other rows are stored."""
    for each in (gateway, other):
        await each.store(batch_of(0.0))  # so that their partition is known
    async with reader.transaction():
        # Holds back the first one after it has noted its ids.
        await reader.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        storing = [
            asyncio.create_task(gateway.store(batch_of(1.0, 2.0), [placed(0, 1, "r"), placed(1, 1, "a")])),
            asyncio.create_task(other.store(batch_of(1.0, 3.0), [placed(0, 1, "r"), placed(1, 1, "b")])),
        ]
        await until(lambda: _fresh(reader, _WAITS))
        assert not any(task.done() for task in storing)
    outcomes = await asyncio.gather(*storing)
    assert sorted(list(outcome.duplicates) for outcome in outcomes) == [[], [0]]
    assert await values_in(reader) == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert (await gateway.cursor(), await other.cursor()) == (2, 2)


async def _fresh(reader: Reader, query: str) -> object:
    """Inside a transaction the view is a snapshot, made when it is first read."""
    await reader.execute("SELECT pg_stat_clear_snapshot()")
    return await reader.fetchval(query)


async def test_the_first_of_two_fails_and_the_second_stores(
    database_url: str, gateway: Gateway, other: Gateway, reader: Reader
) -> None:
    """Who waited for a request that was rolled back after all is no duplicate."""
    async with connected(database_url) as first, first.transaction():
        await gateway.store(batch_of(0.0))
        await first.execute("INSERT INTO request_ids SELECT '', 'r', '', 1, '', '[]', $1, 1", uuid4())
        storing = asyncio.create_task(other.store(batch_of(1.0), [placed(0, 1, "r")]))
        await until(lambda: reader.fetchval(_WAITS))
        await first.execute("DELETE FROM request_ids")
    assert await storing == Outcome([], [], [])
    assert await values_in(reader) == [0.0, 1.0]


async def test_gateways_with_the_same_ids_in_other_orders_do_not_deadlock(
    database: Database, database_url: str, reader: Reader
) -> None:
    """Thousands of ids, over several statements, forwards and backwards at once: each row once, no failure."""
    ids = [f"r{number}" for number in range(12_000)]
    async with opened(database_url) as second:
        storing = [
            Gateway(each).store(
                batch_of(*range(len(ids))), [placed(at, 1, id_) for at, id_ in enumerate(order)]
            )
            for each, order in ((database, ids), (second, ids[::-1]))
        ]
        outcomes = await asyncio.gather(*storing)
    assert sorted(len(outcome.duplicates) for outcome in outcomes) == [0, 12_000]
    assert await count_in(reader, "metrics") == await count_in(reader, "request_ids") == 12_000


async def test_an_expired_id_is_as_if_unknown(database: Database, reader: Reader) -> None:
    """The same request after the window is stored again, and known again from then on; one with other rows too."""
    gateway = Gateway(database, request_id_window_s=HOUR_S)
    await gateway.store(batch_of(1.0), [placed(0, 1, "r")])
    await reader.execute(_AGE)
    key = ("", "r")
    assert await database.stored_requests([key], HOUR_S) == {}
    request = placed(0, 1, "r", asks="else")
    assert await gateway.store(batch_of(2.0), [request]) == Outcome([], [], [])
    assert await database.stored_requests([key], HOUR_S) == {key: StoredRequest(request.request)}
    assert await gateway.store(batch_of(2.0), [request]) == Outcome([], [0], [])
    assert await values_in(reader) == [1.0, 2.0]


async def test_what_a_request_became_can_be_asked(database: Database, reader: Reader) -> None:
    """With what was refused of it, row by row counted from its first, and whatever the service wrote down."""
    gateway = Gateway(database)
    await reader.execute("ALTER TABLE metrics ADD CONSTRAINT small CHECK (value < 100)")
    told = Placed(1, 3, placed(1, 3, "ünï\U0001f600").request._replace(rejected=b"\0\xff", accepted=3))
    plain = placed(4, 1, "plain")
    await gateway.store(batch_of(1.0, 2.0, 200.0, 300.0, 5.0), [told, plain])
    found = await database.stored_requests([told.request.key, plain.request.key, ("", "unknown")], HOUR_S)
    assert found.keys() == {told.request.key, plain.request.key}
    assert found[plain.request.key] == StoredRequest(plain.request)
    assert found[told.request.key].request == told.request
    dead = found[told.request.key].dead
    assert all("small" in each.reason for each in dead)
    assert states(dead) == [(1, "23514"), (2, "23514")]


async def test_old_ids_are_purged_in_chunks(database_url: str, database: Database, reader: Reader) -> None:
    """More than one transaction takes; the younger stay; one that somebody holds is passed over, not waited for."""
    insert = (
        "INSERT INTO request_ids SELECT '', convert_to(n::text, 'UTF8'), '', 1, '', '[]', $1, 1,"
        " now() - CASE WHEN n > 12000 THEN interval '1 minute' ELSE interval '2 hours' END"
        " FROM generate_series(1, 12003) AS n"
    )
    await reader.execute(insert, uuid4())
    async with connected(database_url) as holder, holder.transaction():
        await holder.execute("SELECT FROM request_ids WHERE id = '1' FOR UPDATE")
        assert await database.purge(HOUR_S) == 11_999
        assert await count_in(reader, "request_ids") == 4
    assert await database.purge(HOUR_S) == 1
    assert await database.purge(HOUR_S) == 0
    assert await count_in(reader, "request_ids") == 3


async def test_label_sets_of_rows_left_out_are_not_believed_to_be_there(
    database: Database, reader: Reader
) -> None:
    """A set that only came with another request under a known id was not inserted; rows that name it later must
    find it."""
    labels = [label_set({"n": str(number)}) for number in range(2)]
    gateway = Gateway(database)
    documents = {each.id: each.document for each in labels}

    def rows(*sets: int) -> MetricBatch:
        return MetricBatch.of_rows([row(1.0, label_set_id=labels[each].id) for each in sets], documents)

    await gateway.store(batch_of(0.0), [placed(0, 1, "r")])
    conflict = [placed(0, 1, "r", asks="else")]
    for sets in ((0,), (0, 1)):  # with all rows left out, and with some
        outcome = await gateway.store(rows(*sets), conflict)
        assert states(outcome.dead) == [(0, None)]
    assert [found["id"] for found in await reader.fetch("SELECT id FROM label_sets")] == [labels[1].id]
    await gateway.store(rows(0, 1))
    assert await reader.fetchval("SELECT count(*) FROM labeled_metrics WHERE labels <> '{}'") == 3


async def test_left_out_rows_are_found_in_an_arranged_delivery(database: Database, reader: Reader) -> None:
    """The batch that is copied is in another order than the requests' rows: still the right ones are left out."""
    gateway = Gateway(database)
    await gateway.store(batch_of(1.0), [placed(0, 1, "r")])
    made = [row(float(number), service=f"s{number % 3}") for number in range(30)]
    batch = MetricBatch.of_rows(made, {})
    sorted_ = arranged(batch)
    assert sorted_.by_series
    delivery = delivery_of(batch, [placed(5, 20, "r")], after=1, position=2)
    await gateway.repository.bulk_insert_metrics(
        type(delivery)(batch, sorted_, delivery.after, delivery.position, delivery.requests)
    )
    assert await values_in(reader) == [0.0, 1.0, 1.0, 2.0, 3.0, 4.0, 25.0, 26.0, 27.0, 28.0, 29.0]
