"""Whatever became of a journal's files, who only looks at them finds what the start finds."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ingestor.errors import JournalProblem
from ingestor.journal.files import Directory
from ingestor.journal.limits import LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.parts import Gap
from ingestor.journal.survey import export, survey
from tests.journal.forgetful_disk import Disk
from tests.journal.segment_files import MANY, must_agree, record

# A file for each append, two or three entries in one, or all in one.
_SEGMENT_BYTES = (1, 1_500, 100_000)


class Append(NamedTuple):
    """So many entries, and after them so many thirds of what is not committed yet, which the database has then."""

    entries: int
    thirds: int
    at_s: float


class Damage(NamedTuple):
    """To a file, and at a place in it, that are told as shares of all: some bytes are inverted, or zeros from there
    on, or it ends there."""

    kind: str
    file: float
    at: float
    size: int


_shares = st.floats(0, 1, exclude_max=True)
_appends = st.builds(Append, st.integers(1, 3), st.integers(0, 3), st.sampled_from((0.0, 2.0)))
_damages = st.builds(
    Damage, st.sampled_from(("flip", "zeros", "end")), _shares, _shares, st.sampled_from((1, 50, 600, 5_000))
)


@settings(deadline=None, max_examples=150)
@given(
    segment_bytes=st.sampled_from(_SEGMENT_BYTES),
    appends=st.lists(_appends, min_size=1, max_size=6),
    damages=st.lists(_damages, min_size=1, max_size=3),
)
def test_who_looks_at_damaged_files_finds_what_the_start_finds(
    segment_bytes: int, appends: list[Append], damages: list[Damage]
) -> None:
    """Also once more, when the start has set aside what it found damaged; and when it went on, and then crashed.
    Who is refused by one is by the other."""
    disk = Disk()
    limits = LogLimits(64 * 1024**2, segment_bytes)
    _fill(disk.boot(), limits, appends)
    for damage in damages:
        _harm(disk.boot(), damage)
    for _ in range(2):
        if _agree(disk.boot(), limits) is None:
            return
    last = _go_on(disk.boot(), limits)
    gaps = _agree(disk.boot(), limits)
    assert gaps is not None
    assert all(gap.last <= last for gap in gaps), "what came after the damage is not lost"


def _fill(directory: Directory, limits: LogLimits, appends: list[Append]) -> None:
    now_s = 1_000.0
    log = SegmentLog.open(directory, limits, lambda: now_s)
    for append in appends:
        now_s += append.at_s
        log.append([record(log.last + 1 + number) for number in range(append.entries)])
        log.committed(log.committed_hint + (log.last - log.committed_hint) * append.thirds // 3)
    log.close()


def _harm(directory: Directory, damage: Damage) -> None:
    sizes = directory.sizes()
    name = sorted(sizes)[int(damage.file * len(sizes))]
    at = int(damage.at * sizes[name])
    file = directory.open_file(name)
    data = file.read(at, damage.size)
    if damage.kind == "end":
        file.truncate(at)
    elif damage.kind == "flip":
        file.write(at, bytes(each ^ 1 for each in data))
    else:
        file.write(at, bytes(len(data)))


def _go_on(directory: Directory, limits: LogLimits) -> int:
    """More is appended, and all but the last of it committed and removed, which nothing says when the process ends.
    Returns what the last position was before."""
    log = SegmentLog.open(directory, limits, lambda: 2_000.0)
    last = log.last
    for _ in range(3):
        log.append([record(log.last + 1)])
    log.committed(log.last - 1)
    return last


def _agree(directory: Directory, limits: LogLimits) -> list[Gap] | None:
    """What both say of the journal is the same. Returns which gaps; None when there is no journal that can be
    opened."""
    missing: list[tuple[int, int]] = []
    try:
        looked = survey(directory, whole=False)
    except JournalProblem:
        looked, refused = None, True
    else:
        refused = False
        exported = [each.position for each in export(directory, None, lambda *gap: missing.append(gap))]
    try:
        log = SegmentLog.open(directory, limits, lambda: 2_000.0)
    except JournalProblem:
        assert refused
        return None
    assert not refused
    if looked is None:
        assert log.last == 0, "there was no journal"
        return None
    # Each tells them in the order in which it reads.
    looked.gaps.sort()
    log.recovery.gaps.sort()
    must_agree(looked, log)
    assert [each.position for each in log.read(log.committed_hint, MANY, MANY)] == exported
    assert sorted(missing) == looked.gaps
    log.close()
    return log.recovery.gaps
