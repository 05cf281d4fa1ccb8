"""What goes into the log and comes out of it, entry by entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ingestor.journal import frames
from ingestor.journal.files import File
from ingestor.journal.segments import Frame
from ingestor.model.batch import MetricBatch
from ingestor.model.delivery import Placed


class Record(NamedTuple):
    """An entry on the disk. `taken_at_us` is the wall clock's, microseconds since 1970."""

    position: int
    batch: MetricBatch
    taken_at_us: int
    requests: tuple[Placed, ...] = ()


class Summary(NamedTuple):
    """A record without its rows; `bytes` are those on the disk."""

    position: int
    rows: int
    bytes: int
    taken_at_us: int
    requests: tuple[Placed, ...]


class Begun(NamedTuple):
    """An append that lacks its sync: of `file`, which holds `data` now, the frames of `records` and a cursor's
    after them."""

    records: Sequence[Record]
    written: Sequence[bytes]
    cursor_bytes: int
    data: bytes
    file: File


def record_of(frame: Frame) -> Record:
    """The entry that stands there."""
    head = frame.head
    batch = frames.decode_batch(head, frame.payload)
    return Record(head.position, batch, head.taken_at_us, frames.decode_requests(frame.meta))
