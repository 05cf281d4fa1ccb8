"""Segment files made and taken apart by hand, for tests of what the log makes of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from ingestor.errors import JournalProblem
from ingestor.journal import frames
from ingestor.journal.directory import DiskDirectory
from ingestor.journal.frames import Header
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.records import Record
from ingestor.journal.segments import DAMAGED
from ingestor.journal.survey import Survey, survey
from ingestor.model import MetricBatch, Row

MANY = 10**9
NOW_S = 1_700_000_000.5
JOURNAL = UUID("00112233-4455-6677-8899-aabbccddeeff")
SEED = frames.seed(JOURNAL)
LIMITS = LogLimits(bytes_max=64 * 1024**2)
ONE_EACH = LogLimits(bytes_max=64 * 1024**2, segment_bytes=1)
"""Every append begins a segment."""


def name(sequence: int) -> str:
    """A segment's file."""
    return f"{sequence:012}.segment"


def record(position: int, value: float | None = None) -> Record:
    """An entry of one row, which is known by its value: the position, unless another is named."""
    return Record(position, MetricBatch.of_row(Row(0, "s", "m", float(value or position)), {}), 0)


def entry(position: int, value: float | None = None, number: int = 0) -> bytes:
    """The same as a frame."""
    found = record(position, value)
    return frames.encode_entry(SEED, position, found.batch, found.taken_at_us, number=number)


def cursor(position: int) -> bytes:
    """The frame that says that everything up to there is committed."""
    return frames.encode_cursor(SEED, position, 0, JOURNAL, None)


def segment(sequence: int, first: int, *parts: bytes, committed: int = 0, journal: UUID = JOURNAL) -> bytes:
    """A file of a header and these frames."""
    header = Header(journal, None, sequence, first, first - 1, committed, 0)
    return frames.encode_header(header) + b"".join(parts)


def entries_in(data: bytes) -> dict[int, tuple[int, int]]:
    """Where each entry's frame begins and ends in a sound file. Reads the layout for itself."""
    places: dict[int, tuple[int, int]] = {}
    offset = 88
    while offset < len(data):
        body, meta, _, position, _, kind = struct.unpack_from("<IIIQqB", data, offset + 12)
        end = offset + 48 + meta + body
        if kind == 1:
            places[position] = offset, end
        offset = end
    return places


def put(data_dir: Path, *files: bytes) -> Path:
    """Makes these the journal's first segments; returns its directory."""
    path = data_dir / "journal"
    path.mkdir(mode=0o700, parents=True)
    for sequence, data in enumerate(files, 1):
        (path / name(sequence)).write_bytes(data)
    return path


def contents(path: Path) -> dict[str, bytes]:
    """All files of a directory but the lock."""
    return {each.name: each.read_bytes() for each in path.iterdir() if each.name != "lock"}


def aside(sequence: int) -> str:
    """The name of a file that is kept for its damage."""
    return name(sequence) + ".damaged"


def let_go(sequence: int) -> str:
    """Its name once the log has done with it."""
    return name(sequence) + ".committed.damaged"


def broken(data: bytes, position: int) -> bytes:
    """The file with one byte of that entry changed."""
    begin, end = entries_in(data)[position]
    at = (begin + end) // 2
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


@contextmanager
def opened(
    data_dir: Path,
    limits: LogLimits = LIMITS,
    clock: Callable[[], float] = lambda: NOW_S,
    *,
    looks: bool = True,
) -> Iterator[SegmentLog]:
    """The log in DATA_DIR/journal; closed, with all that it had open. Somebody who `looks` at it before finds the
    same."""
    directory = DiskDirectory.open(data_dir)
    try:
        looked = survey(directory, whole=False) if looks else None
        log = SegmentLog.open(directory, limits, clock)
        try:
            if looked is not None:
                must_agree(looked, log)
            yield log
        finally:
            log.close()
    finally:
        directory.close()


def must_agree(looked: Survey, log: SegmentLog) -> None:
    """What was found by looking is what the log was opened with."""
    hint = log.committed_hint
    assert (looked.committed, looked.last) == (hint, log.last)
    assert looked.gaps == [(max(gap.first, hint + 1), gap.last) for gap in log.recovery.gaps]
    # The log names those first that were set aside before.
    damaged = sorted(each.removesuffix(DAMAGED) for each in log.recovery.damaged)
    assert [each.removesuffix(DAMAGED) for each in looked.damaged_files] == damaged
    assert looked.sound == (not looked.gaps and not damaged)


def refusal(data_dir: Path) -> str:
    """What is said when the log there can't be opened."""
    with pytest.raises(JournalProblem) as refused, opened(data_dir, looks=False):
        pass
    return str(refused.value)


def refusal_to_look(data_dir: Path) -> str:
    """What is said to who only looks."""
    with pytest.raises(JournalProblem) as refused:
        survey(DiskDirectory.open(data_dir, create=False), whole=False)
    return str(refused.value)


def values(log: SegmentLog, after: int = 0) -> dict[int, float]:
    """What is read behind that position: positions, in their order, and values."""
    found: Sequence[Record] = log.read(after, MANY, MANY)
    assert [each.position for each in found] == sorted({each.position for each in found})
    return {each.position: each.batch.columns.column("value").to_pylist()[0] for each in found}


FIRST = segment(1, 1, entry(1), cursor(0), entry(2))
"""A file of two entries."""
