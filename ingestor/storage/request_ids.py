"""The table `request_ids`: which requests are committed, so that the same one, sent again, is not stored again.

Which of two gateways was first the database decides, in the transactions that store the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

import asyncpg

from ingestor.model.delivery import DeadRow, Placed, Request, RequestKey, StoredRequest
from ingestor.storage.transactions import Connection

# In one statement: the event loop stands still while it is encoded.
_IDS_MAX = 5_000
# In the order of the keys, also from statement to statement, so that two gateways with the same ids can't deadlock.
# One that is older than the window is as if it had never been.
_INSERT = """
INSERT INTO request_ids AS known (caller, id, fingerprint, accepted, rejected, journal, position)
  SELECT *, $6::uuid, $7::bigint
    FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::integer[], $5::bytea[])
      AS new (caller, id, fingerprint, accepted, rejected)
    ORDER BY caller, id
  ON CONFLICT (caller, id) DO UPDATE
    SET fingerprint = excluded.fingerprint, accepted = excluded.accepted, rejected = excluded.rejected,
        dead = DEFAULT, journal = excluded.journal, position = excluded.position, committed_at = DEFAULT
    WHERE known.committed_at < now() - make_interval(secs => $8)
  RETURNING caller, id
"""
_FIND = """
SELECT known.* FROM unnest($1::bytea[], $2::bytea[]) AS asked (caller, id)
  JOIN request_ids AS known USING (caller, id)
"""
_FIND_RECENT = _FIND + "WHERE committed_at >= now() - make_interval(secs => $3)"
_NOTE_DEAD = """
UPDATE request_ids AS known SET dead = new.dead::json
  FROM unnest($1::bytea[], $2::bytea[], $3::text[]) AS new (caller, id, dead)
  WHERE known.caller = new.caller AND known.id = new.id
"""
# Past those that somebody waits for or replaces: they are gone with the next purge.
_PURGE = """
WITH gone AS (
  DELETE FROM request_ids WHERE (caller, id) IN (
    SELECT caller, id FROM request_ids WHERE committed_at < now() - make_interval(secs => $1)
      ORDER BY committed_at LIMIT $2 FOR UPDATE SKIP LOCKED)
  RETURNING 1)
SELECT count(*) FROM gone
"""


class Statements(Protocol):
    """Runs statements, each in a transaction of its own."""

    async def execute(self, query: str, *arguments: object) -> Any: ...
    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]: ...


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of a delivery's requests, by their indexes: those whose rows are stored already, and those that took the id
    of a request with other rows."""

    duplicates: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)


class RequestIds:
    """Notes them for one journal, and looks at those that are there."""

    def __init__(self, journal: UUID, window_s: float) -> None:
        self._journal = journal
        self._window_s = window_s

    async def record(self, connection: Connection, requests: Sequence[Placed], position: int) -> Verdicts:
        """Writes them on this connection, as part of its transaction; those with a known id are judged instead.
        Waits while another transaction is about to commit one of them."""
        if not requests:
            return Verdicts()
        mine: set[RequestKey] = set()
        firsts = {placed.request.key: placed.request for placed in reversed(requests)}
        for some in _slices(sorted(firsts)):
            new = [firsts[key] for key in some]
            rows = await connection.fetch(_INSERT, *_columns(new), self._journal, position, self._window_s)
            mine.update(_key(row) for row in rows)
        known = await _fingerprints(connection, firsts.keys() - mine)
        return _judge(requests, known)

    async def judge_stored(
        self, connection: Connection, requests: Sequence[Placed], position: int
    ) -> Verdicts:
        """What `record` said when the transaction that went to this position was made."""
        known: dict[RequestKey, bytes] = {}
        for some in _slices(sorted({placed.request.key for placed in requests})):
            for row in await connection.fetch(_FIND, *_keys(some)):
                if (row["journal"], row["position"]) != (self._journal, position):
                    known[_key(row)] = row["fingerprint"]
        return _judge(requests, known)

    async def note_dead(self, connection: Connection, dead: Mapping[RequestKey, Sequence[DeadRow]]) -> None:
        """Writes down which of their rows were not stored, for whoever asks again."""
        for some in _slices(sorted(dead)):
            texts = [json.dumps(dead[key], separators=(",", ":")) for key in some]
            await connection.execute(_NOTE_DEAD, *_keys(some), texts)


def _judge(requests: Sequence[Placed], known: Mapping[RequestKey, bytes]) -> Verdicts:
    """`known` are the fingerprints of those that others have stored; of the rest the first with each key counts."""
    verdicts = Verdicts()
    seen = dict(known)
    for index, placed in enumerate(requests):
        request = placed.request
        if request.key not in seen:
            seen[request.key] = request.fingerprint
        elif seen[request.key] == request.fingerprint:
            verdicts.duplicates.append(index)
        else:
            verdicts.conflicts.append(index)
    return verdicts


async def stored_requests(
    statements: Statements, keys: Sequence[RequestKey], window_s: float
) -> dict[RequestKey, StoredRequest]:
    """Those of them that were committed within the window."""
    found: dict[RequestKey, StoredRequest] = {}
    for some in _slices(keys):
        for row in await statements.fetch(_FIND_RECENT, *_keys(some), window_s):
            caller, id_ = key = _key(row)
            request = Request(caller, id_, row["fingerprint"], row["accepted"], row["rejected"])
            found[key] = StoredRequest(request, tuple(DeadRow(*dead) for dead in json.loads(row["dead"])))
    return found


async def purge(statements: Statements, window_s: float, rows_max: int) -> int:
    """Deletes up to so many that are older than the window; returns how many."""
    return int(await statements.execute(_PURGE, window_s, rows_max))


async def _fingerprints(connection: Connection, keys: Iterable[RequestKey]) -> dict[RequestKey, bytes]:
    known: dict[RequestKey, bytes] = {}
    for some in _slices(sorted(keys)):
        known.update({_key(row): row["fingerprint"] for row in await connection.fetch(_FIND, *_keys(some))})
    return known


def _slices(keys: Sequence[RequestKey]) -> Iterable[Sequence[RequestKey]]:
    return (keys[start : start + _IDS_MAX] for start in range(0, len(keys), _IDS_MAX))


def _key(row: asyncpg.Record) -> RequestKey:
    return row["caller"].decode(), row["id"].decode()


def _keys(keys: Sequence[RequestKey]) -> tuple[list[bytes], list[bytes]]:
    return [caller.encode() for caller, _ in keys], [id_.encode() for _, id_ in keys]


def _columns(requests: Sequence[Request]) -> tuple[list[Any], ...]:
    return (
        *_keys([request.key for request in requests]),
        [request.fingerprint for request in requests],
        [request.accepted for request in requests],
        [request.rejected for request in requests],
    )
