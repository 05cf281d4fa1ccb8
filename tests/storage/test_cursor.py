"""Once and only once: the cursor that moves with each delivery, and the requests that were seen before."""

from __future__ import annotations

import asyncio

import pytest

from ingestor.errors import CursorElsewhere, SchemaProblem, StorageUnavailable
from ingestor.model import MetricBatch, label_set
from ingestor.storage.database import Database
from tests.stalling_proxy import stalling
from tests.storage.deliveries import (
    Gateway,
    Reader,
    batch_of,
    count_in,
    delivery_of,
    opened,
    placed,
    row,
    states,
    values_in,
)


async def test_the_cursor_moves_with_the_rows(database: Database, reader: Reader) -> None:
    """In their transaction: where they are, it is; where they are not, it is not."""
    gateway = Gateway(database)
    await gateway.store(batch_of(1))
    assert await gateway.cursor() == 1
    await reader.execute("ALTER TABLE metrics RENAME TO away")
    with pytest.raises(SchemaProblem):
        await gateway.store(batch_of(2))
    assert await gateway.cursor() == 1
    await reader.execute("ALTER TABLE away RENAME TO metrics")
    await gateway.store(batch_of(2))
    assert await gateway.cursor() == 2
    assert await values_in(reader) == [1, 2]


async def test_a_commit_whose_answer_was_lost_is_not_repeated(database_url: str) -> None:
    """The connection is cut when the server has the COMMIT: the next attempt finds what became of it."""
    async with opened(database_url) as direct:
        await direct.transactions.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 100)")
        async with stalling(database_url) as (url, proxy), opened(url) as database:
            gateway = Gateway(database)
            await gateway.store(batch_of(0))
            proxy.deaf_after(b"ingestor_move_cursor")
            with pytest.raises(StorageUnavailable):
                async with asyncio.timeout(20):
                    await gateway.store(batch_of(1, 2), [placed(0, 1, "a")])
            assert await direct.cursor(gateway.journal) == 2
            await gateway.store(batch_of(1, 2), [placed(0, 1, "a")])
            assert await direct.transactions.execute("SELECT count(*) FROM metrics") == 3
            assert await gateway.cursor() == 2


async def test_an_outcome_is_told_although_the_answer_was_lost(database: Database, reader: Reader) -> None:
    """Dead rows and duplicates are found where the first attempt has left them."""
    await reader.execute("ALTER TABLE metrics ADD CONSTRAINT low CHECK (value < 100)")
    await Gateway(database).store(batch_of(1), [placed(0, 1, "a")])
    first = Gateway(database)
    requests = [placed(0, 1, "a"), placed(1, 2, "b")]
    told = await first.store(batch_of(1, 2, 200), requests)
    assert (states(told.dead), list(told.duplicates)) == ([(2, "23514")], [0])
    again = Gateway(database, first.journal)  # a gateway that does not know of it
    repeated = await again.store(batch_of(1, 2, 200), requests)
    assert (states(repeated.dead), list(repeated.duplicates)) == ([(2, "23514")], [0])
    assert await values_in(reader) == [1, 2]
    assert await count_in(reader, "dead_letters") == 1


@pytest.mark.parametrize(("stands", "after", "position"), [(5, 7, 8), (0, 7, 8), (5, 1, 3)])
async def test_a_cursor_elsewhere_is_told(
    database: Database, reader: Reader, stands: int, after: int, position: int
) -> None:
    """As after a restore, or when somebody uses a copy of the journal; nothing is stored. Further on than the
    delivery's end is the one place that means: stored already."""
    gateway = Gateway(database)
    await database.begin_cursor(gateway.journal, stands, durable=True)
    delivery = delivery_of(batch_of(1), after=after, position=position)
    if stands >= position:
        await gateway.repository.bulk_insert_metrics(delivery)
    else:
        with pytest.raises(CursorElsewhere) as caught:
            await gateway.repository.bulk_insert_metrics(delivery)
        assert caught.value.position == stands
    assert await values_in(reader) == []


async def test_a_cursor_that_somebody_else_moves_is_noticed(database: Database, reader: Reader) -> None:
    """Although it was sure after the last success: nothing is stored then."""
    gateway = Gateway(database)
    await gateway.store(batch_of(1))
    await reader.execute("UPDATE ingestor_journals SET position = 0")
    with pytest.raises(CursorElsewhere) as caught:
        await gateway.store(batch_of(2))
    assert caught.value.position == 0
    assert await values_in(reader) == [1]


async def test_another_database_behind_the_address_gets_nothing(database_url: str, another_url: str) -> None:
    """It is found out when the connection is made anew, and named; the first one back, it goes on."""
    async with opened(another_url) as other, opened(database_url) as database:
        gateway = Gateway(database)
        await gateway.store(batch_of(1))
        database.move(another_url)
        await database.transactions.renew()
        await database.transactions.execute("SELECT 1")
        with pytest.raises((SchemaProblem, CursorElsewhere)):
            await gateway.store(batch_of(2))
        with pytest.raises(SchemaProblem, match="another database"):
            await gateway.store(batch_of(2))
        assert await other.transactions.execute("SELECT count(*) FROM metrics") == 0
        database.move(database_url)
        await database.transactions.renew()
        await gateway.store(batch_of(2))
        assert await gateway.cursor() == 2


async def test_two_gateways_with_one_request(database: Database, reader: Reader) -> None:
    """At the same time: one stores it, the other leaves its rows out, and both cursors move."""
    gateways = [Gateway(database) for _ in range(2)]
    outcomes = await asyncio.gather(
        *(each.store(batch_of(1, 2, 10 + n), [placed(0, 2, "r")]) for n, each in enumerate(gateways))
    )
    assert sorted(list(outcome.duplicates) for outcome in outcomes) == [[], [0]]
    assert await values_in(reader) == [1, 2, 10, 11]
    assert [await each.cursor() for each in gateways] == [1, 1]


async def test_another_payload_under_the_same_id_is_kept_apart(database: Database, reader: Reader) -> None:
    """It was acknowledged, so it goes into dead_letters; its labels are stored with the next rows that have
    them."""
    await Gateway(database).store(batch_of(1), [placed(0, 1, "r", asks="one")])
    labels = label_set({"a": "b"})
    sets = {labels.id: labels.document}
    rows = MetricBatch.of_rows([row(2, label_set_id=labels.id), row(3)], sets)
    gateway = Gateway(database)
    outcome = await gateway.store(rows, [placed(0, 1, "r", asks="other")])
    assert [(each.row, each.sqlstate) for each in outcome.dead] == [(0, None)]
    assert "request_id" in outcome.dead[0].reason
    assert await values_in(reader) == [1, 3]
    assert await count_in(reader, "dead_letters") == 1
    await gateway.store(MetricBatch.of_rows([row(4, label_set_id=labels.id)], sets))
    assert await count_in(reader, "label_sets") == 1


async def test_the_same_id_twice_in_a_delivery_counts_once(database: Database, reader: Reader) -> None:
    """The first is stored, the second left out."""
    outcome = await Gateway(database).store(batch_of(1, 1), [placed(0, 1, "r"), placed(1, 1, "r")])
    assert list(outcome.duplicates) == [1]
    assert await values_in(reader) == [1]


async def test_ids_are_forgotten_after_their_window(database: Database, reader: Reader) -> None:
    """Then the same id is another request; and they are purged, also many of them."""
    gateway = Gateway(database, request_id_window_s=60)
    await gateway.store(batch_of(1), [placed(0, 1, "r")])
    await reader.execute("UPDATE request_ids SET committed_at = now() - interval '2 minutes'")
    assert await database.stored_requests([("", "r")], 60) == {}
    outcome = await gateway.store(batch_of(2), [placed(0, 1, "r")])
    assert list(outcome.duplicates) == []
    assert await values_in(reader) == [1, 2]
    await reader.execute("UPDATE request_ids SET committed_at = now() - interval '2 minutes'")
    assert await database.purge(60) >= 1
    assert await count_in(reader, "request_ids") == 0


async def test_a_delivery_of_which_nothing_is_left_moves_the_cursor(
    database: Database, reader: Reader
) -> None:
    """All its rows were stored before."""
    await Gateway(database).store(batch_of(1), [placed(0, 1, "r")])
    gateway = Gateway(database)
    assert list((await gateway.store(batch_of(1), [placed(0, 1, "r")])).duplicates) == [0]
    assert await gateway.cursor() == 1
    assert await values_in(reader) == [1]
