"""Compares the ledger with the database: nothing acknowledged may be missing, nothing may be there twice.

It reads every row; a count alone would hide a row that is lost behind one that is stored twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import asyncpg
import numpy as np
import numpy.typing as npt

from tests.fault.harness.ledger import Counts, Fate, Ledger
from tests.fault.harness.rows import WRONG_TEXTS, Times

_STORED = "SELECT value::bigint AS row, (extract(epoch FROM time) * 1000000)::bigint AS at FROM metrics"
_DEAD = "SELECT (metric->>'value')::float8::bigint AS row, 0::bigint AS at FROM dead_letters"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to."""

    rounds: int
    requests: int
    unanswered: int
    retries: int
    acknowledged: int
    stored: int
    dead: int
    lost: int
    twice: int


class Sent(Protocol):
    """A load, after it."""

    ledger: Ledger
    times: Times
    retries: int


async def verdict(load: Sent, database_url: str, rounds: int = 1) -> Verdict:
    """Raises AssertionError with the first rows that are not as they have to be."""
    ledger = load.ledger
    connection = await asyncpg.connect(database_url, timeout=30)
    try:
        stored, times = await _rows(connection, _STORED)
        dead, _ = await _rows(connection, _DEAD)
        wrong_texts = await connection.fetchval(WRONG_TEXTS)
    finally:
        await connection.close()
    assert not ledger.complaints, ledger.complaints[:5]
    expected = ledger.expected()
    for rows in (stored, dead):
        assert not rows.size or (rows.min() >= 0 and rows.max() < ledger.rows)
    in_table, in_dead = _count(stored, ledger.rows), _count(dead, ledger.rows)
    seen = in_table + in_dead
    lost, twice = seen < expected.least, seen > np.maximum(expected.most, 1)
    problems = {
        "lost": lost,
        "stored twice": twice,
        "stored although refused": (seen > expected.most) & ~twice,
        "poison in the table": (in_table > 0) & expected.poisoned,
        "good rows in dead_letters": (in_dead > 0) & ~expected.poisoned,
    }
    told = {name: _spans(load, np.flatnonzero(where)) for name, where in problems.items() if where.any()}
    assert not told, told
    timed = expected.timed[stored]
    assert (times[timed] == load.times.of_all(stored[timed])).all(), "stored at other times"
    assert wrong_texts == 0
    return Verdict(
        rounds,
        len(ledger.pages),
        ledger.count(Fate.UNANSWERED),
        load.retries,
        ledger.acknowledged_rows,
        stored.size,
        dead.size,
        int(lost.sum()),
        int(twice.sum()),
    )


async def _rows(connection: asyncpg.Connection[asyncpg.Record], query: str) -> tuple[Counts, Counts]:
    records = await connection.fetch(query, timeout=120)
    pairs = np.array([tuple(record) for record in records], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _count(rows: Counts, size: int) -> npt.NDArray[np.int64]:
    return np.bincount(rows, minlength=size).astype(np.int64)


def _spans(load: Sent, rows: Counts) -> str:
    """How many, and whose the first ones are."""
    wanted = set(rows[:2_000].tolist())
    pages = [
        f"{page.request} {page.fate.value} (attempts {page.attempts}, unanswered {page.unanswered})"
        for page in load.ledger.pages
        if not wanted.isdisjoint(range(page.request.first, page.request.first + page.request.size))
    ]
    return f"{rows.size} rows {rows[:5].tolist()} of {pages[:4]}"
