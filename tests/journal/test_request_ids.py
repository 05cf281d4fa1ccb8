"""Which requests were seen before: names that are claimed, and what the database is asked for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence

import pytest
from loguru import logger

from ingestor.errors import Conflict, StorageUnavailable, Unavailable
from ingestor.journal import RequestIds, request_ids
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
        ids.hold(REQUEST, Receipt(), lambda: None, Ack.QUEUED)
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
    ids.hold(REQUEST, Receipt(), lambda: None, Ack.QUEUED)  # taken
    assert await third is not None


async def test_many_names_are_asked_for_at_once() -> None:
    """One question at a time, and the next for all who came meanwhile."""
    database = Database()
    database.gate.clear()
    ids = RequestIds(database.lookup)
    tasks = [asyncio.create_task(ids.find(REQUEST._replace(id=str(number)))) for number in range(20)]
    await turns()
    tasks.append(asyncio.create_task(ids.find(REQUEST)))
    await turns()
    assert len(database.asked) == 1
    database.gate.set()
    assert await asyncio.gather(*tasks) == [None] * 21
    assert len(database.asked) == 2


async def test_a_question_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is asked for with the next one."""
    monkeypatch.setattr(request_ids, "_ASKED_AT_ONCE_MAX", 5)
    database = Database()
    ids = RequestIds(database.lookup)
    names = [REQUEST._replace(id=str(number)) for number in range(12)]
    assert await asyncio.gather(*map(ids.find, names)) == [None] * 12
    assert [len(asked) for asked in database.asked] == [5, 5, 2]


async def test_a_database_that_does_not_answer_lets_requests_in() -> None:
    """The commit decides: nobody is refused because it can't be known. What nobody foresaw is in the log."""
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="ERROR")

    async def gone(_: Sequence[RequestKey]) -> Mapping[RequestKey, StoredRequest]:
        raise StorageUnavailable("gone")

    async def broken(_: Sequence[RequestKey]) -> Mapping[RequestKey, StoredRequest]:
        raise ZeroDivisionError

    for lookup in (None, gone, broken):
        assert await asyncio.wait_for(RequestIds(lookup).find(REQUEST), 5) is None
    logger.remove(sink)
    assert told == ["looking up request ids failed in a way not foreseen"]


async def test_who_gives_up_asking_leaves_the_name_free() -> None:
    """Cancelled while the database is asked, it claims nothing."""
    database = Database()
    database.gate.clear()
    ids = RequestIds(database.lookup)
    first = asyncio.create_task(ids.find(REQUEST))
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    database.gate.set()
    assert await asyncio.wait_for(ids.find(REQUEST), 5) is None


@pytest.mark.parametrize("window_s", [10.0, None], ids=["as told", "a day"])
async def test_what_was_committed_before_the_window_counts_as_new(window_s: float | None) -> None:
    """As in the database, however few there were since."""
    now_s = 1e6

    def clock() -> float:
        return now_s

    ids = RequestIds(clock=clock) if window_s is None else RequestIds(window_s=window_s, clock=clock)
    ids.committed(REQUEST, ())
    now_s += window_s or 86_400
    assert await ids.find(REQUEST) is not None
    now_s += 0.1
    assert await ids.find(REQUEST) is None


async def test_what_is_remembered_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may have many rejected rows, and many dead ones; what is forgotten the database is asked for."""
    monkeypatch.setattr(request_ids, "_ANSWERS_BYTES_MAX", 100_000)
    asked = Database()
    ids = RequestIds(asked.lookup)

    def named(name: str, size: int) -> Request:
        return Request("", name, b"f", 1, bytes(size))

    ids.committed(named("huge", 1_001), ())
    ids.committed(named("dead", 0), tuple(DeadRow(row, None, "no") for row in range(6)))
    for number in range(200):
        ids.committed(named(f"r{number}", 1_000), ())
        ids.committed(named(f"r{number}", 1_000), ())  # again is no second time
    for name, known in (("huge", False), ("dead", False), ("r99", False), ("r100", True), ("r199", True)):
        asked.asked.clear()
        found = await ids.find(named(name, 0))
        assert (found is not None, asked.asked == []) == (known, known), name
    for number in range(200):
        ids.hold(named(f"h{number}", 1_000), Receipt(), lambda: None, Ack.QUEUED)
    assert await ids.find(named("h99", 0)) is not None
    assert await ids.find(named("h100", 0)) is None
    ids.drop(named("h0", 1_000))
    ids.hold(named("h200", 1_000), Receipt(), lambda: None, Ack.QUEUED)
    assert await ids.find(named("h200", 0)) is not None


async def test_what_is_large_pushes_nothing_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not remembered at all; and what is forgotten takes no room from what comes later."""
    monkeypatch.setattr(request_ids, "_ANSWERS_BYTES_MAX", 100_000)
    ids = RequestIds()
    ids.committed(REQUEST._replace(id="huge", rejected=bytes(1_001)), ())
    ids.committed(REQUEST._replace(id="dead"), tuple(DeadRow(row, None, "no") for row in range(6)))
    for name in ("huge", "dead"):
        assert await ids.find(REQUEST._replace(id=name)) is None
    for turn in ("first", "again"):
        for number in range(100):
            ids.committed(REQUEST._replace(id=f"{turn} {number}", rejected=bytes(1_000)), ())
        assert await ids.find(REQUEST._replace(id=f"{turn} 0")) is not None
        ids.forget_recent()
        assert await ids.find(REQUEST._replace(id=f"{turn} 0")) is None


async def test_only_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small they are."""
    monkeypatch.setattr(request_ids, "_RECENT_MAX", 3)
    ids = RequestIds()
    names = [REQUEST._replace(id=str(number)) for number in range(5)]
    for name in names:
        ids.committed(name, ())
    assert [await ids.find(name) is not None for name in names] == [False, False, True, True, True]


async def test_only_who_waits_for_the_commit_makes_the_journal_hurry() -> None:
    """Others are content with what is done already."""
    ids = RequestIds()
    urged: list[None] = []
    receipt = Receipt()
    ids.hold(REQUEST, receipt, lambda: urged.append(None), Ack.QUEUED)
    found = await ids.find(REQUEST)
    assert found is not None
    receipt.advance(Ack.JOURNALED)
    await found.reached(Ack.JOURNALED)
    assert not urged
    receipt.advance(Ack.COMMITTED)
    await found.reached(Ack.COMMITTED)
    assert urged


async def test_only_who_claimed_a_name_gives_it_up() -> None:
    """The first one's late release must not let a third in beside the second."""
    ids = RequestIds()
    first, second = REQUEST, REQUEST._replace(accepted=3)
    assert await ids.find(first) is None
    ids.hold(first, Receipt(), lambda: None, Ack.JOURNALED)
    ids.release(first)
    ids.drop(first)
    assert await ids.find(second) is None
    ids.release(first)
    third = asyncio.create_task(ids.find(REQUEST))
    await turns()
    assert not third.done()
    ids.release(second)
    assert await third is None


@pytest.mark.parametrize("answers", ["same", "other", "nothing"])
async def test_what_others_stored_is_asked_for(answers: str) -> None:
    """Who waits hears what the database says of it, or to ask again; nobody else is asked for."""
    dead = (DeadRow(0, "23514", "no"),)
    stored = REQUEST if answers == "same" else REQUEST._replace(fingerprint=b"other")
    database = Database(*([] if answers == "nothing" else [StoredRequest(stored, dead)]))
    ids = RequestIds(database.lookup)
    receipt = Receipt(awaited=True)
    ids.hold(REQUEST, receipt, lambda: None, Ack.QUEUED)
    ids.resolve(REQUEST._replace(id="unheard"), Receipt())
    ids.resolve(REQUEST, receipt)
    assert not ids.holds(REQUEST, receipt), "who comes later asks by himself"
    expected = {"same": None, "other": Conflict, "nothing": Unavailable}[answers]
    if expected is None:
        assert await receipt.reached(Ack.COMMITTED) == dead
    else:
        with pytest.raises(expected):
            await receipt.reached(Ack.COMMITTED)
    assert database.asked == [[REQUEST.key]]
    await turns()
    tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task)]
    assert not [each for each in tasks if each.get_name() == "request-id"], "nothing of it is kept"


async def test_two_who_ask_for_one_name_hear_one_answer() -> None:
    """And one who gives up takes nothing from the other."""
    database = Database(StoredRequest(REQUEST))
    database.gate.clear()
    ids = RequestIds(database.lookup)
    receipts = [Receipt(awaited=True) for _ in range(2)]
    finding = asyncio.create_task(ids.find(REQUEST))
    await turns()
    for receipt in receipts:
        ids.resolve(REQUEST, receipt)
    await turns()
    finding.cancel()
    database.gate.set()
    for receipt in receipts:
        assert await asyncio.wait_for(receipt.reached(Ack.COMMITTED), 5) == ()


async def test_of_two_that_wait_under_one_name_the_first_counts() -> None:
    """As it does when they are committed."""
    ids = RequestIds()
    first, second = Receipt(), Receipt()
    for fingerprint, receipt in ((b"first", first), (b"second", second)):
        ids.hold(REQUEST._replace(fingerprint=fingerprint), receipt, lambda: None, Ack.QUEUED)
    assert (ids.holds(REQUEST, first), ids.holds(REQUEST, second)) == (True, False)
    assert await ids.find(REQUEST._replace(fingerprint=b"first")) is not None
    with pytest.raises(Conflict):
        await ids.find(REQUEST._replace(fingerprint=b"second"))
