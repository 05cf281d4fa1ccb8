"""What waits to be read: in memory within a bound, what is behind that on disk alone, and how old it is."""

from __future__ import annotations

import pytest

from ingestor.journal import backlog as backlog_module
from ingestor.journal.backlog import Backlog, Marks
from ingestor.model import Entry
from tests.journal.contract import MANY, batch

SIZE = batch().size_bytes


def entry(position: int, taken_at_s: float = 0.0, rows: int = 1) -> Entry:
    return Entry(position, batch(rows), taken_at_s)


def positions(entries: list[Entry]) -> list[int]:
    return [each.position for each in entries]


def test_a_new_backlog_waits_for_nothing() -> None:
    """It knows where the log ends, and nothing else."""
    new = Backlog(7)
    assert (new.last, new.read_to, new.waiting_rows, new.size_bytes, new.entries) == (7, 0, 0, 0, 0)
    assert (new.spilled, new.age_s(5.0), new.oldest_s()) == (False, 0.0, None)


def test_memory_is_bounded_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three fit; what comes behind them is on disk alone, also when there is room in memory again: else it would be
    read before what came before it."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 3 * SIZE)
    backlog = Backlog(0)
    for position in (1, 2, 3):
        backlog.add(entry(position))
        assert (backlog.spilled, backlog.size_bytes) == (False, position * SIZE)
    backlog.add(entry(4))
    assert (backlog.spilled, backlog.entries, backlog.size_bytes, backlog.waiting_rows) == (
        True,
        3,
        3 * SIZE,
        4,
    )
    assert positions(backlog.take(2)) == [1, 2]
    assert (backlog.read_to, backlog.size_bytes, backlog.waiting_rows) == (2, SIZE, 2)
    backlog.add(entry(5))
    assert positions(backlog.take(MANY)) == [3]
    assert backlog.take(MANY) == []
    assert backlog.read([entry(4)]) == 0
    assert (backlog.spilled, backlog.read_to, backlog.waiting_rows) == (True, 4, 1)
    assert backlog.read([entry(5)]) == 0
    assert (backlog.spilled, backlog.read_to, backlog.waiting_rows) == (False, 5, 0)
    backlog.add(entry(6))
    assert positions(backlog.take(MANY)) == [6]


def test_what_the_disk_does_not_give_back_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether something comes behind it, or nothing."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    backlog = Backlog(0)
    for position, rows in ((1, 2), (2, 3), (3, 5)):
        backlog.add(entry(position, rows=rows))
    assert backlog.read([entry(1, rows=2), entry(3, rows=5)]) == 3
    assert (backlog.waiting_rows, backlog.read_to, backlog.spilled) == (0, 3, False)
    backlog.add(entry(4, rows=7))
    assert backlog.read([]) == 7
    assert (backlog.waiting_rows, backlog.read_to, backlog.spilled) == (0, 4, False)


def test_a_backlog_that_leapt_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last position is one that no entry has: without rows that wait, there is nothing behind what was read."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    backlog = Backlog(0)
    backlog.add(entry(1, 5.0))
    backlog.add(entry(2, 7.0))
    backlog.leapt(1_000)
    assert backlog.read([entry(1)]) == 0
    assert (backlog.spilled, backlog.oldest_s()) == (True, 5.0)
    assert backlog.read([entry(2)]) == 0
    assert (backlog.spilled, backlog.oldest_s(), backlog.read_to) == (False, None, 1_000)


def test_what_is_in_memory_when_it_leaps_is_read_to_the_end_too() -> None:
    """Otherwise somebody would seem to wait for a commit of what nobody has."""
    backlog = Backlog(0)
    backlog.add(entry(1))
    backlog.leapt(1_000)
    assert backlog.read_to == 0
    assert positions(backlog.take(MANY)) == [1]
    assert backlog.read_to == 1_000


def test_a_restart_is_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """All behind the position is on disk; with nothing there, it is as if all were read."""
    backlog = Backlog(9)
    backlog.add(entry(10))
    marks = Marks()
    marks.add(8, 1.0)
    backlog.restart(7, 30, marks)
    assert (backlog.entries, backlog.size_bytes, backlog.waiting_rows) == (0, 0, 30)
    assert (backlog.last, backlog.read_to, backlog.spilled, backlog.oldest_s()) == (10, 7, True, 1.0)
    backlog.restart(10, 0, Marks())
    assert (backlog.read_to, backlog.spilled, backlog.waiting_rows) == (10, False, 0)
    backlog.restart(20, 0, Marks())
    assert (backlog.last, backlog.read_to) == (20, 20)
    backlog.restart(15, 0, Marks())
    assert (backlog.last, backlog.read_to) == (20, 20)
    backlog.leapt(1_000)
    assert (backlog.last, backlog.read_to) == (1_000, 1_000)
    backlog.restart(5, 1, Marks())
    backlog.leapt(2_000)
    assert (backlog.last, backlog.read_to) == (2_000, 5)


def test_the_age_of_what_is_in_memory_is_exact() -> None:
    """It is what a flush waits for."""
    backlog = Backlog(0)
    backlog.add(entry(1, 10.0))
    backlog.add(entry(2, 10.5))
    assert (backlog.age_s(11.0), backlog.oldest_s()) == (1.0, 10.0)
    backlog.take(1)
    assert (backlog.age_s(11.0), backlog.oldest_s()) == (0.5, 10.5)


def test_the_age_of_what_is_on_disk_is_known_to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for nothing but us, so it is due at once."""
    monkeypatch.setattr(backlog_module, "TAIL_BYTES_MAX", 0)
    backlog = Backlog(0)
    for position in range(1, 101):
        backlog.add(entry(position, position / 10))
    assert backlog.age_s(11.0) > 1e6
    for position in range(1, 100):
        backlog.read([entry(position, position / 10)])
        oldest_s = backlog.oldest_s()
        assert oldest_s is not None
        assert (position + 1) / 10 - 1.2 <= oldest_s <= (position + 1) / 10 + 1e-9
    backlog.read([entry(100)])
    assert backlog.oldest_s() is None


def test_marks_are_one_for_each_second() -> None:
    """At that second they begin anew; the last that was passed stands for what follows it."""
    marks = Marks()
    assert marks.oldest_s() is None
    for position, taken_at_s in ((1, 0.0), (2, 1.0), (3, 1.01), (4, 2.0)):
        marks.add(position, taken_at_s)
    assert marks.oldest_s() == 0.0
    marks.passed(2)
    assert marks.oldest_s() == 0.0
    marks.passed(3)
    assert marks.oldest_s() == 1.01
    marks.passed(9)
    assert marks.oldest_s() == 1.01
