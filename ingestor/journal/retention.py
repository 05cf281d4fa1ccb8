"""Which segments may go, and their going.

It removes the oldest only, one by one, each on the disk before the next: so that after a crash no file is missing
between two that are there. One that is damaged is only renamed when its turn comes: so that nobody takes those
behind it, which go later, for lost. It refuses to touch what isn't committed or is written to.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from loguru import logger

from ingestor.journal.files import Files
from ingestor.journal.segments import Segment, let_go_name


class Retention:
    """Keeps the log's list of segments short; the last of them is the one that is written to."""

    def __init__(
        self,
        files: Files,
        retention_s: float,
        segments: list[Segment],
        on_removed: Callable[[Segment], object],
    ) -> None:
        self._files = files
        self._retention_s = retention_s
        self._segments = segments
        self._on_removed = on_removed
        self._unsynced = False
        self._complained = False

    def droppable_bytes(self, committed: int) -> int:
        """What all that may go takes."""
        return sum(
            segment.size_bytes
            for segment in self._segments[:-1]
            if segment.last <= committed and not segment.damaged
        )

    def passed(self, committed: int, now_s: float) -> None:
        """Notes what is committed now."""
        for segment in self._segments[:-1]:  # more may come into the last
            if segment.last > committed:
                break
            if segment.passed_at_s is None:
                segment.passed_at_s = now_s

    def drop_over(self, committed: int, now_s: float) -> None:
        """Removes what has been committed for long enough."""
        while self.is_due(now_s):
            if not self.drop_oldest(committed):
                return

    def is_due(self, now_s: float) -> bool:
        """Whether the oldest has been."""
        return bool(self._segments) and self._is_over(self._segments[0], now_s)

    def rewound(self, committed: int) -> None:
        """What lies behind that isn't committed any more."""
        for segment in self._segments:
            if segment.last > committed:
                segment.passed_at_s = None

    def drop_all(self, committed: int) -> bool:
        """Removes everything that is committed; says whether that was anything."""
        dropped = False
        while self.drop_oldest(committed):
            dropped = True
        return dropped

    def drop_oldest(self, committed: int) -> bool:
        """Removes the oldest segment, if it may go and can."""
        if len(self._segments) < 2 or self._segments[0].last > committed:
            return False
        oldest, behind = self._segments[:2]
        # What it had and lost is still to be told: once it is let go, all before the next file is committed.
        if oldest.damaged and behind.header.previous > committed:
            return False
        return self.drop(oldest)

    def drop(self, segment: Segment) -> bool:
        """Removes it, if that can be done; a damaged one is kept under its last name, and forgotten. So is one that
        can't be renamed: the gap that files behind it leave as they go is told at the next start then."""
        try:
            self._remove(segment)
        except OSError as error:
            if not self._complained:
                logger.warning("the journal can't surely let go of {}: {}", segment.name, error)
            self._complained = True
            if not segment.damaged and self._is_there(segment.name):
                return False
        else:
            self._complained = False
        self._segments.remove(segment)
        self._on_removed(segment)
        return True

    def _remove(self, segment: Segment) -> None:
        name = segment.name
        if self._unsynced:
            self._files.sync()
        self._unsynced = True
        with suppress(FileNotFoundError):  # when the sync failed after it
            if segment.damaged:
                self._files.rename(name, let_go_name(name))
            else:
                self._files.unlink(name)
        try:
            self._files.sync()
        except OSError as error:
            # It is gone for this process; whether a power loss brings it back is settled before the next one goes.
            logger.warning("the journal can't note that {} is gone, and will try again: {}", name, error)
        else:
            self._unsynced = False

    def _is_there(self, name: str) -> bool:
        """Whether it has to be read still; a removal that failed may have happened all the same."""
        try:
            return name in self._files.sizes()
        except OSError:
            return True

    def _is_over(self, segment: Segment, now_s: float) -> bool:
        return segment.passed_at_s is not None and now_s - segment.passed_at_s >= self._retention_s
