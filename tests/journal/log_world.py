"""A log on a disk that forgets and fails at will, and beside it, in plain lists, what the log promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from uuid import UUID

from ingestor.errors import JournalProblem
from ingestor.journal.limits import AppendFailed, JournalFull, LogLimits
from ingestor.journal.log import SegmentLog
from ingestor.journal.records import Record
from ingestor.journal.survey import Survey, survey
from ingestor.model import MetricBatch, Row
from tests.journal.forgetful_disk import Disk, Fault, PowerLoss

MANY = 10**9
LIMITS = LogLimits(bytes_max=12_000, segment_bytes=1_500, retention_s=5.0, ample_bytes=0)


def record(position: int, value: int) -> Record:
    """An entry that is known by its value."""
    return Record(position, MetricBatch.of_row(Row(0, "s", "m", float(value)), {}), 0)


def value_of(found: Record) -> int:
    return int(found.batch.columns.column("value").to_pylist()[0])


class World:
    """A log on a disk, and beside it what the log promised.

    `acked` has the entries of every append that returned, `maybe` those that may be there or not: of appends that
    a crash interrupted, or that failed without being certain. `gone` are acknowledged ones that the database had
    when the log removed them. `cursor` is the database's, and `met` says whether this process has seen it.
    """

    def __init__(self, seed: int = 0, limits: LogLimits = LIMITS) -> None:
        self.disk = Disk(seed)
        self.limits = limits
        self.now_s = 1_000.0
        self.log: SegmentLog | None = None
        self.acked: dict[int, int] = {}
        self.maybe: dict[int, set[int]] = {}
        self.gone: set[int] = set()
        self.cursor = self.told = 0
        self.met = True
        self.database: UUID | None = None
        self.databases: set[UUID | None] = {None}
        self.value = 0
        self.begun = self.finished = 0

    # What is done.

    def open(self, faults: Sequence[Fault] = (), *, meets: bool = True) -> None:
        """Starts a process; the worker then tells the log where the database's cursor stands, unless the database
        is away."""
        assert self.log is None
        self.met = meets
        directory = self.disk.boot()
        looked = survey(directory, whole=False)
        with self.faults(faults):
            try:
                self.log = SegmentLog.open(directory, self.limits, lambda: self.now_s)
            except JournalProblem:
                assert self._unwell(faults), "it can't be opened, although the disk is well"
                return
        if not faults and looked is not None:
            self._compare_survey(looked)
        self._compare_opened()

    def meet(self) -> None:
        """The database is there again."""
        self.met = True
        self._tell()

    def advance_cursor(self, ahead: int) -> None:
        """While no process runs, the database turns out to have more than is here: the disk lost the end."""
        if not self.acked and not self.maybe:
            return
        self.cursor = self.told = max([self.told, *self.acked, *self.maybe]) + ahead
        self.gone |= set(self.acked)

    def append(self, count: int, faults: Sequence[Fault] = (), *, here: bool = False) -> None:
        """With `here` as the event loop appends: begun, synced by somebody else, finished; and as the log's thread
        does where that can't be or failed."""
        log = self.opened()
        first = log.last + 1
        records = []
        for number in range(count):
            self.value += 1
            records.append(record(first + number, self.value))
        before = {position: set(values) for position, values in self.maybe.items()}
        for found in records:  # in case that a crash interrupts it
            self.maybe.setdefault(found.position, set()).add(value_of(found))
        with self.faults(faults):
            try:
                if not (here and self._appended_here(log, records)):
                    log.append(records)
                    log.room_bytes()  # as the thread does, for those that are begun
            except AppendFailed as failed:
                self._refused(failed, faults)
                if failed.certain:
                    self.maybe = before
                assert log.last == first - 1
                return
        if self.log is None:
            return
        self.maybe = {position: values for position, values in self.maybe.items() if position < first}
        for found in records:
            self.acked[found.position] = value_of(found)
        assert log.last == first - 1 + count

    def _appended_here(self, log: SegmentLog, records: Sequence[Record]) -> bool:
        with suppress(OSError):
            begun = log.begin(records)
            if begun is None:
                return False
            self.begun += 1
            begun.file.sync()
            log.finish(begun)
            self.finished += 1
            return True
        return False

    def commit(self, share: float, faults: Sequence[Fault] = ()) -> None:
        log = self.opened()
        self.cursor += int((log.last - self.cursor) * share + 0.5)
        self.told = max(self.told, self.cursor)
        with self.faults(faults):
            log.committed(self.cursor)

    def rewind(self, share: float) -> None:
        """The database is restored to an earlier state."""
        self.cursor = int(self.cursor * share)
        self._tell()

    def skip(self, ahead: int, faults: Sequence[Fault] = ()) -> None:
        """The database turns out to have more than was ever here."""
        self.cursor = self.opened().last + ahead
        self.told = max(self.told, self.cursor)
        with self.faults(faults):
            self._tell(faults)

    def bind(self, database: UUID, faults: Sequence[Fault] = ()) -> None:
        log = self.opened()
        self.databases.add(database)
        with self.faults(faults):
            try:
                log.bind(database)
            except OSError:
                assert self._unwell(faults)
                assert log.database == self.database
                return
        if self.log is None:
            return
        self.database = database
        self.databases = {database}

    def close(self, faults: Sequence[Fault] = ()) -> None:
        log = self.opened()
        with self.faults(faults):
            log.close()
            self.log = None

    def lose_power(self) -> None:
        self.disk.lose_power()
        self.log = None

    def kill(self) -> None:
        """The process dies, the machine lives on."""
        self.log = None

    def opened(self) -> SegmentLog:
        assert self.log is not None
        return self.log

    @contextmanager
    def faults(self, faults: Sequence[Fault]) -> Iterator[None]:
        """The disk fails so; a power loss ends the process."""
        self.disk.fail(faults)
        try:
            yield
        except PowerLoss:
            assert faults
            self.log = None
        finally:
            self.disk.fail(())

    # What must be so.

    def check(self) -> None:
        """Reads all that is there, and compares."""
        if self.log is None:
            return
        self._note_removed()
        self._compare(self.log.read(0, MANY, MANY), 0)
        self._compare(self.log.read(self.cursor, MANY, MANY), self.cursor)
        assert [s.position for s in self.log.pending(self.cursor)] == [
            r.position for r in self.log.read(self.cursor, MANY, MANY)
        ]
        assert self.log.size_bytes <= self.limits.bytes_max + 200, "more than the bound, and a header or two"
        for gap in self.log.recovery.gaps:
            lost = [p for p in self.acked if gap.first <= p <= gap.last and p not in self.gone]
            assert not lost, f"{gap} names what is there"
        assert self.log.database in self.databases
        assert self.log.committed_hint <= self.told

    def _note_removed(self) -> None:
        log = self.opened()
        removed = {position for position in self.acked if position < log.first}
        assert all(position <= self.told for position in removed - self.gone)
        self.gone |= removed

    def _compare_survey(self, looked: Survey) -> None:
        """Who only looked has found what the start found."""
        log = self.opened()
        assert (looked.committed, looked.last) == (log.committed_hint, log.last)
        assert looked.pending_entries == len(list(log.pending(log.committed_hint)))
        amiss = log.recovery.gaps or log.recovery.damaged
        assert looked.sound == (not amiss)

    def _compare_opened(self) -> None:
        """What a new process finds becomes what is there."""
        log = self.log
        if log is None:
            return
        if self.acked:
            assert log.last >= max(self.acked), "a position would be given out again"
        found = log.read(0, MANY, MANY)
        # What the database had may have been removed by what the crash interrupted.
        self.gone |= {position for position in self.acked if position <= self.told} - {
            r.position for r in found
        }
        self._compare(found, 0)
        positions = {r.position for r in found}
        self.gone -= positions
        for r in found:
            if r.position not in self.acked and not self.disk.in_limbo:
                self.acked[r.position] = value_of(r)  # what was read stays
        if not self.disk.in_limbo:
            self.maybe.clear()
        self.database = log.database
        self.databases = {log.database}
        log.room_bytes()
        if self.met:
            self._tell()
            return
        log.leap()

    def _unwell(self, faults: Sequence[Fault]) -> bool:
        return bool(faults) or self.disk.tight

    def _refused(self, failed: AppendFailed, faults: Sequence[Fault]) -> None:
        assert self._unwell(faults) or isinstance(failed, JournalFull)

    def _tell(self, faults: Sequence[Fault] = ()) -> None:
        """The worker starts, or starts again, at the database's cursor; without that nothing is appended."""
        log = self.opened()
        if self.cursor > log.last:
            try:
                log.skip_to(self.cursor)
                assert log.last == self.cursor
            except OSError:
                assert self._unwell(faults)
                self.log = None
            return
        missing = log.rewound(self.cursor)
        self._note_removed()
        behind = [p for p in self.gone if self.cursor < p <= log.last]
        first, last = missing or (1, 0)
        assert all(first <= position <= last for position in behind), "a gap that isn't told"
        there = [p for p in self.acked if p not in self.gone and first <= p <= last]
        assert not there, "a gap that isn't one"

    def _compare(self, found: Sequence[Record], after: int) -> None:
        seen = [(r.position, value_of(r)) for r in found]
        positions = [position for position, _ in seen]
        assert positions == sorted(set(positions)), "out of order"
        for position, value in seen:
            allowed = set(self.maybe.get(position, ()))
            if position in self.acked:
                allowed.add(self.acked[position])
            assert value in allowed, f"{position} holds {value}, which isn't one of {allowed}"
        missing = {p for p in self.acked if p > after and p not in self.gone} - set(positions)
        assert not missing, f"lost: {sorted(missing)}"
