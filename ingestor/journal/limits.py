"""How much the log may take of a disk, and what an append is refused with when it can't.

Nothing here looks at the disk: what there is room for is the log's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

_SEGMENT_BYTES_MAX = 64 * 1024**2
_SEGMENTS_MIN = 8


class AppendFailed(Exception):
    """Nothing of what was to be appended is in the log; with `certain=False` some of it may come back if the
    process dies before the next append succeeds."""

    def __init__(self, message: str, *, certain: bool = True) -> None:
        super().__init__(message)
        self.certain = certain


class JournalFull(AppendFailed):
    """There is no room for it: the journal's bound, the reserve, or the disk."""


class JournalFailed(AppendFailed):
    """The disk failed."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """`bytes_max` bounds all segments together, `segment_bytes` one (0: an eighth of all, 64 MiB at most); what is
    committed is kept for `retention_s` while there is room; `free_bytes_reserve` is left free on the disk. With
    less than `ample_bytes` of room beside that no append is begun without looking."""

    bytes_max: int
    segment_bytes: int = 0
    retention_s: float = 0.0
    free_bytes_reserve: int = 0
    ample_bytes: int = 256 * 1024**2

    @property
    def roll_bytes(self) -> int:
        """The size at which a new segment is begun."""
        return self.segment_bytes or min(_SEGMENT_BYTES_MAX, self.bytes_max // _SEGMENTS_MIN)
