"""The table `label_sets`: each distinct set once, in the transaction of the first rows that name it.

Sets that are known to be committed are remembered, within a bound, so that most batches write none.
"""

from __future__ import annotations

from collections.abc import Mapping

from ingestor.storage.transactions import Connection

_REMEMBERED_MAX = 200_000
# In one statement: the event loop stands still while it is encoded.
_INSERTED_MAX = 5_000

# In the order of their ids, also from statement to statement, so that two gateways which insert the same sets can't
# deadlock.
_INSERT = """
INSERT INTO label_sets (id, labels)
  SELECT * FROM unnest($1::bigint[], $2::jsonb[]) AS new (id, labels) ORDER BY id
  ON CONFLICT (id) DO NOTHING
"""


class LabelSets:
    """Which sets still have to be written."""

    def __init__(self) -> None:
        self._committed: set[int] = set()

    def unknown(self, label_sets: Mapping[int, str]) -> dict[int, str]:
        """Those that are not known to be in the table."""
        return {id_: document for id_, document in label_sets.items() if id_ not in self._committed}

    async def insert(self, connection: Connection, label_sets: Mapping[int, str]) -> None:
        """Writes them on this connection, as part of its transaction."""
        ids = sorted(label_sets)
        for start in range(0, len(ids), _INSERTED_MAX):
            some = ids[start : start + _INSERTED_MAX]
            await connection.execute(_INSERT, some, [label_sets[id_] for id_ in some])

    def forget(self) -> None:
        """Nothing is known to be in the table."""
        self._committed.clear()

    def remember(self, label_sets: Mapping[int, str]) -> None:
        """They are committed."""
        if len(self._committed) + len(label_sets) > _REMEMBERED_MAX:
            self._committed.clear()
        self._committed.update(label_sets)
