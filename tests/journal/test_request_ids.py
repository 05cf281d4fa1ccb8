"""Which requests were seen before: names that are claimed, and what the database is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from ingestor.errors import Conflict, StorageUnavailable
from ingestor.journal import RequestIds
from ingestor.journal.receipts import Receipt
from ingestor.model import Ack, DeadRow, Request, RequestKey, StoredRequest
from tests.journal.contract import turns

REQUEST = Request("", "r", b"fingerprint", 3)


class Database:
    """Answers with what it has, when it may."""

    def __init__(self, *stored: StoredRequest) -> None:
        self.stored = {each.request.key: each for each in stored}
        self.asked: list[list[RequestKey]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def lookup(self, keys: Sequence[RequestKey]) -> Mapping[RequestKey, StoredRequest]:
        self.asked.append(list(keys))
        await self.gate.wait()
        return {key: self.stored[key] for key in keys if key in self.stored}


async def test_what_was_committed_before_is_found_in_the_database() -> None:
    """With what became of it then."""
    dead = (DeadRow(1, "23514", "bad"),)
    found = await RequestIds(Database(StoredRequest(REQUEST, dead)).lookup).find(REQUEST)
    assert found is not None
    assert found.request == REQUEST
    assert await found.reached(Ack.COMMITTED) == dead
    assert await found.reached(Ack.JOURNALED) == ()


@pytest.mark.parametrize("where", ["held", "recent", "stored"])
async def test_another_request_of_the_same_name_is_a_conflict(where: str) -> None:
    """Wherever the first one is known from; and the name is not claimed by it."""
    ids = RequestIds(Database(StoredRequest(REQUEST)).lookup if where == "stored" else None)
    if where == "held":
        ids.hold(REQUEST, Receipt(), lambda: None)
    elif where == "recent":
        ids.committed(REQUEST, ())
    for _ in range(2):
        with pytest.raises(Conflict, match="'r'"):
            await ids.find(REQUEST._replace(fingerprint=b"other"))
    assert await ids.find(REQUEST) is not None


async def test_the_second_of_two_at_once_waits_for_the_first() -> None:
    """It is told what became of the first, also when that was refused: then it is the first itself."""
    ids = RequestIds()
    assert await ids.find(REQUEST) is None
    second, third = (asyncio.create_task(ids.find(REQUEST)) for _ in range(2))
    await turns()
    assert not second.done()
    ids.release(REQUEST)  # refused
    assert await second is None
    await turns()
    assert not third.done()
    ids.hold(REQUEST, Receipt(), lambda: None)  # taken
    assert await third is not None


async def test_many_names_are_asked_for_at_once() -> None:
    """One question at a time, and the next for all who came meanwhile."""
    database = Database()
    database.gate.clear()
    ids = RequestIds(database.lookup)
    tasks = [asyncio.create_task(ids.find(REQUEST._replace(id=str(number)))) for number in range(20)]
    await turns()
    database.gate.set()
    assert await asyncio.gather(*tasks) == [None] * 20
    assert len(database.asked) <= 2


async def test_a_database_that_does_not_answer_lets_requests_in() -> None:
    """The commit decides: nobody is refused because it can't be known."""

    async def gone(_: Sequence[RequestKey]) -> Mapping[RequestKey, StoredRequest]:
        raise StorageUnavailable("gone")

    async def broken(_: Sequence[RequestKey]) -> Mapping[RequestKey, StoredRequest]:
        raise ZeroDivisionError

    for lookup in (gone, broken):
        assert await asyncio.wait_for(RequestIds(lookup).find(REQUEST), 5) is None


async def test_who_gives_up_asking_leaves_the_name_free() -> None:
    """Cancelled while the database is asked, it claims nothing."""
    database = Database()
    database.gate.clear()
    ids = RequestIds(database.lookup)
    first = asyncio.create_task(ids.find(REQUEST))
    await turns()
    first.cancel()
    await turns()
    database.gate.set()
    assert await asyncio.wait_for(ids.find(REQUEST), 5) is None
