"""The end of the log, where bytes are written and synced.

It refuses to write to a file again whose sync has failed: what such a file holds behind its last good sync
nobody can know (the kernel calls those pages clean, and a second sync would succeed). It goes on in a new file,
which begins with the next position and so makes void whatever of it the old one may turn out to hold.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from loguru import logger

from ingestor.journal.files import File, Files
from ingestor.journal.frames import HEADER_BYTES, Header, encode_header
from ingestor.journal.segments import Segment, segment_name

# Files that could be neither finished nor removed.
_LEFTOVERS_MAX = 8


class Tail:
    """Writes the last segment. Every method raises OSError when the disk does."""

    def __init__(
        self,
        files: Files,
        journal: UUID,
        database: UUID | None,
        sequence: int,
        clock: Callable[[], float],
    ) -> None:
        """`sequence` is the last one that a file's name ever had."""
        self._files = files
        self._journal = journal
        self._database = database
        self._sequence = sequence
        self._clock = clock
        self._segment: Segment | None = None
        self._file: File | None = None
        self._trusted = False
        self._uncut = False
        self._leftovers: list[str] = []

    @property
    def segment(self) -> Segment | None:
        """The one that is written to; None before there is one."""
        return self._segment

    @property
    def file(self) -> File | None:
        """It, open."""
        return self._file

    @property
    def database(self) -> UUID | None:
        """What the next segment's header says."""
        return self._database

    @property
    def usable(self) -> bool:
        """Whether the next write goes into the same file."""
        return self._trusted

    @property
    def clean(self) -> bool:
        """Whether nothing has to be cut off before it."""
        return not self._uncut

    def adopt(self, segment: Segment, file: File, *, trusted: bool) -> None:
        """Goes on with a segment that was found."""
        self._segment, self._file, self._trusted = segment, file, trusted

    def distrust(self) -> None:
        """Has the next write begin a new file."""
        self._trusted = False

    def name_database(self, database: UUID | None) -> None:
        """From the next segment on."""
        self._database = database

    def write(self, data: bytes) -> None:
        """Appends, synced. When it raises, nothing of it counts."""
        self.begin(data).sync()
        self.synced(data)

    def begin(self, data: bytes) -> File:
        """Appends, but for the sync of the file that it returns: nothing of it counts before `synced`, and where
        that never comes the file is not trusted again."""
        if self._segment is None or self._file is None or not self._trusted:
            msg = "roll() comes first"
            raise RuntimeError(msg)
        segment, file = self._segment, self._file
        self.cut()
        self._uncut = True
        end = segment.end + len(data)
        segment.size_bytes = max(segment.size_bytes, end)
        file.write(segment.end, data)
        self._trusted = False
        return file

    def synced(self, data: bytes) -> None:
        """What was begun last is on the disk."""
        assert self._segment is not None
        self._trusted, self._uncut = True, False
        self._segment.end += len(data)
        self._segment.size_bytes = self._segment.end

    def write_unsynced(self, data: bytes) -> None:
        """Appends what may be lost; only just before `close`."""
        if self._segment is not None and self._file is not None and self._trusted and not self._uncut:
            self._file.write(self._segment.end, data)

    def cut(self, *, force: bool = False) -> None:
        """Cuts what a failed write may have left; with `force` also what it knows nothing of."""
        if not (self._uncut or force) or self._segment is None or self._file is None:
            return
        trusted, self._trusted = self._trusted, False
        self._file.truncate(self._segment.end)
        self._file.sync()
        self._segment.size_bytes = self._segment.end
        self._trusted, self._uncut = trusted, False

    def roll(self, first: int, previous: int, committed: int) -> Segment:
        """Begins a new segment at that position, the next one behind `previous`; on disk, with its name, once this
        returns."""
        self._remove_leftovers()
        self._trusted = False
        self._sequence += 1
        name = segment_name(self._sequence)
        header = Header(
            *(self._journal, self._database, self._sequence, first, previous, committed),
            int(self._clock() * 1_000_000),
        )
        file = self._files.open_file(name, create=True)
        try:
            file.write(0, encode_header(header))
            file.sync()
            self._files.sync()
        except OSError:
            file.close()
            self._leftovers.append(name)
            self._try_to_remove_leftovers()
            raise
        self.close()
        self._segment, self._file = Segment(name, header, HEADER_BYTES), file
        self._trusted, self._uncut = True, False
        return self._segment

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove_leftovers(self) -> None:
        self._try_to_remove_leftovers()
        if len(self._leftovers) >= _LEFTOVERS_MAX:
            self._files.unlink(self._leftovers[0])  # says why

    def _try_to_remove_leftovers(self) -> None:
        for name in list(self._leftovers):
            try:
                self._files.unlink(name)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("the journal can't remove {}, which it could not finish: {}", name, error)
                return
            self._leftovers.remove(name)
