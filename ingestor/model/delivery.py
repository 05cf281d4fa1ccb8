"""What travels with rows from a request to the database and back: who sent them, where they stand in the order, and
what became of them.

Journal, batcher and storage speak of these and of nothing else; none of it knows how any of them works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from ingestor.model.batch import MetricBatch

NOTHING = 0
"""The position before the first entry: a cursor that stands there has committed nothing."""


class Ack(IntEnum):
    """What a request waits for before it is answered; the numbers are those of the API's AckLevel."""

    QUEUED = 1
    JOURNALED = 2
    COMMITTED = 3


RequestKey: TypeAlias = tuple[str, str]
"""Who called, and the request_id that they gave: what makes a request the same as another."""


class Request(NamedTuple):
    """A request that carries a request_id. `fingerprint` is a hash of what it asks for, `accepted` how many of its
    rows were taken, `rejected` those that were not, as the service encodes them (empty: none)."""

    caller: str
    id: str
    fingerprint: bytes
    accepted: int
    rejected: bytes = b""

    @property
    def key(self) -> RequestKey:
        """Its identity."""
        return self.caller, self.id


class Placed(NamedTuple):
    """A request's rows are those from `first` on, `rows` of them, of the batch that it is spoken of with."""

    first: int
    rows: int
    request: Request


class Taken(NamedTuple):
    """What is left of an Entry when its rows are elsewhere: how many there were."""

    position: int
    rows: int
    taken_at_s: float
    requests: tuple[Placed, ...] = ()


class Entry(NamedTuple):
    """What a journal holds under one position: the rows of one request, or of a few that came together.
    `taken_at_s` is monotonic seconds; `requests` are those with a request_id, in the order of their rows."""

    position: int
    batch: MetricBatch
    taken_at_s: float
    requests: tuple[Placed, ...] = ()

    @property
    def rows(self) -> int:
        """How many it holds."""
        return self.batch.rows

    @property
    def taken(self) -> Taken:
        """The same without them."""
        return Taken(self.position, self.batch.rows, self.taken_at_s, self.requests)


class DeadRow(NamedTuple):
    """The database refuses row number `row` of a batch (from 0), and always will. `sqlstate` is None when it was we
    who refused."""

    row: int
    sqlstate: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Rows for one transaction, which also moves the journal's cursor from `after` to `position`. `batch` has them
    in the order of the entries, `arranged` the same rows as suits the table."""

    batch: MetricBatch
    arranged: MetricBatch
    after: int
    position: int
    requests: Sequence[Placed] = ()


class StoredRequest(NamedTuple):
    """A request that was committed before; `dead` are its rows that were not stored, counted from its first."""

    request: Request
    dead: tuple[DeadRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery that was committed. `dead` are rows of its batch, in order, that are in
    dead_letters now. The others are indexes into its requests: `duplicates` are those whose rows somebody had
    stored before, `conflicts` (their rows are dead) those whose id somebody had used for other rows."""

    dead: Sequence[DeadRow] = ()
    duplicates: Sequence[int] = ()
    conflicts: Sequence[int] = ()
