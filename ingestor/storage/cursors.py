"""The table `ingestor_journals`: how far each journal has got in this database.

A cursor is only moved in the transaction that stores what it passes, and only from where it was believed to stand;
but for a journal that comes from another database, which has stored what lies between.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from ingestor.errors import SchemaProblem
from ingestor.model.delivery import NOTHING
from ingestor.storage.transactions import Connection

# Asked together: behind an address there may be another database than before.
_HERE = (
    "SELECT (SELECT id FROM ingestor_database), (SELECT position FROM ingestor_journals WHERE journal = $1)"
)
_POSITION = "SELECT position FROM ingestor_journals WHERE journal = $1"
# A journal that this database has not heard of has committed nothing here (it is a new one, or an older backup).
_BEGIN = """
INSERT INTO ingestor_journals (journal, position, durable) VALUES ($1, $2, $3) ON CONFLICT (journal) DO NOTHING
"""
# What a journal has had committed elsewhere is not stored here, too; and what it has here is never stored again.
_ADOPT = """
INSERT INTO ingestor_journals AS here (journal, position, durable) VALUES ($1, $2, $3)
  ON CONFLICT (journal) DO UPDATE SET position = greatest(here.position, excluded.position),
    durable = excluded.durable, updated_at = now()
  RETURNING position
"""
_FORGET = "DELETE FROM ingestor_journals WHERE journal = $1"
_TOUCH = "UPDATE ingestor_journals SET updated_at = now() WHERE journal = ANY ($1::uuid[])"
# Whoever had such a journal is gone without a word. (A chunk at a time, and past those that somebody moves.)
_PURGE = """
WITH gone AS (
  DELETE FROM ingestor_journals WHERE journal IN (
    SELECT journal FROM ingestor_journals WHERE NOT durable AND updated_at < now() - make_interval(secs => $1)
      LIMIT $2 FOR UPDATE SKIP LOCKED)
  RETURNING 1)
SELECT count(*) FROM gone
"""
UNMOVED_S_MAX = 86_400.0
"""A cursor of a journal that isn't durable is purged when it has not moved for so long."""


class Statements(Protocol):
    """Runs statements, each in a transaction of its own."""

    async def execute(self, query: str, *arguments: object) -> object: ...


class Cursors:
    """The cursors, and which of them this process moves."""

    def __init__(self, statements: Statements, identity: UUID) -> None:
        self._statements = statements
        self._identity = identity
        self._durable: dict[UUID, bool] = {}

    async def position(self, journal: UUID) -> int | None:
        """Where it stands; None when this database has not heard of that journal."""
        position = await self._statements.execute(_POSITION, journal)
        return None if position is None else int(str(position))

    async def begin(self, journal: UUID, position: int, *, durable: bool) -> None:
        """From now on this process moves it; it begins at `position`, unless it is there already."""
        await self._statements.execute(_BEGIN, journal, position, durable)
        self._durable[journal] = durable

    async def adopt(self, journal: UUID, position: int, *, durable: bool) -> int:
        """The same for a journal that comes from another database, which has all up to `position`: a cursor that it
        left here is not believed to be less. Returns where it stands now."""
        stands_at = await self._statements.execute(_ADOPT, journal, position, durable)
        self._durable[journal] = durable
        return int(str(stands_at))

    async def forget(self, journal: UUID) -> None:
        """The journal has come to its end."""
        self._durable.pop(journal, None)
        await self._statements.execute(_FORGET, journal)

    async def read(self, connection: Connection, journal: UUID) -> int:
        """Where it stands, asked on this connection; a journal that is not known begins at NOTHING. Raises
        SchemaProblem when the connection leads to another database than this process has begun with."""
        here = await connection.fetchrow(_HERE, journal)
        assert here is not None
        identity, position = here
        if identity != self._identity:
            msg = (
                f"DATABASE_URL leads to another database than before ({identity}, not {self._identity}): nothing is"
                " stored there; bring the right one back, or start again to be asked about it"
            )
            raise SchemaProblem(msg)
        if position is None:
            await connection.execute(_BEGIN, journal, NOTHING, self._durable.get(journal, True))
            position = await connection.fetchval(_POSITION, journal)
        return int(position)

    async def purge(self, rows_max: int) -> int:
        """Deletes up to so many that are neither durable nor moved; returns how many. Those of this process are in
        use, however idle."""
        await self._statements.execute(_TOUCH, list(self._durable))
        return int(str(await self._statements.execute(_PURGE, UNMOVED_S_MAX, rows_max)))


def moving(journal: UUID, after: int, position: int) -> str:
    """SQL that moves a cursor, to go with COMMIT."""
    return f"SELECT ingestor_move_cursor('{journal}', {after:d}, {position:d});"
